"""What every adapter offers: blocks, prunable matrices, the loss of a batch, saving."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ecoflap.errors import ModelError, message
from ecoflap.models.offload import Offload
from ecoflap.models.structure import find_block_lists
from ecoflap.runtime import Cost


@dataclass(frozen=True)
class Matrix:
    """A weight matrix that may be pruned.

    Attributes:
        name: Dotted name of the Linear in the model.
        tower: ``vision`` or ``language``.
        block: Index into the model's blocks.
        module: The Linear, weight [n_out, n_in].
    """

    name: str
    tower: str
    block: int
    module: nn.Linear

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return self.module.weight.numel()


@dataclass(frozen=True)
class Block:
    """A transformer block; one without matrices (Q-Former) runs but is never pruned."""

    index: int
    name: str
    tower: str | None
    module: nn.Module
    matrices: tuple[Matrix, ...]


class Model:
    """A Hugging Face model seen as a list of blocks with prunable matrices.

    Subclasses say how a batch is made, what its loss is, and which tokens are padding.

    Attributes:
        module: The Hugging Face model, in eval mode, without caches.
        processor: Its processor or tokenizer.
        blocks: Its blocks in the order of its modules.
        masks: Packed masks (`artifacts.pack_mask`) of the matrices pruned so far, by name.
        weights: Where the weights of blocks are while they do not run; None: on the device.
    """

    row_towers: ClassVar[tuple[str, ...]] = ("language",)
    never_pruned: ClassVar[tuple[str, ...]] = ("qformer", "connector", "projector", "resampler")
    vision_names: ClassVar[tuple[str, ...]] = ("vision", "visual", "image")

    def __init__(self, module: nn.Module, processor: Any):
        """Args: a loaded Hugging Face model and its processor."""
        self.module = module.eval()
        self.processor = processor
        self.masks: dict[str, torch.Tensor] = {}
        self.weights: Offload | None = None
        _switch_off_caches(module)
        self.blocks = self._find_blocks()
        if not any(block.matrices for block in self.blocks):
            raise ModelError(
                message(
                    f"no transformer blocks found in {type(module).__name__}",
                    "a ModuleList of at least two equal blocks that hold Linear layers",
                    "This architecture needs an adapter of its own in ecoflap/models.",
                )
            )

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.weights.device if self.weights else next(self.module.parameters()).device

    @property
    def offload(self) -> str:
        """Where the weights of blocks wait: ``none``, ``cpu`` or ``disk``."""
        return self.weights.store.kind if self.weights else "none"

    def resident(self, block: int) -> AbstractContextManager:
        """Holds the weights of a block on the device; may be nested."""
        return self.weights.resident(block) if self.weights else nullcontext()

    def keep_changes(self, block: Block) -> None:
        """Stores the changed weights of a block that is on the device."""
        if self.weights:
            changed = {f"{m.name}.weight": m.module.weight for m in block.matrices}
            self.weights.store.write(changed)

    def cost(self) -> Cost:
        """Returns a measurement of time and memory that counts the weights too."""
        weights = sum(p.numel() * p.element_size() for p in self.module.parameters())
        return Cost(str(self.device), weights / 2**20)

    def matrices(self) -> Iterator[Matrix]:
        """Iterates over all prunable matrices, block by block."""
        for block in self.blocks:
            yield from block.matrices

    def resident_matrices(self) -> Iterator[Matrix]:
        """Iterates over all prunable matrices, each while its block is on the device."""
        for block in self.blocks:
            with self.resident(block.index):
                yield from block.matrices

    def block_modules(self) -> list[nn.Module]:
        """Returns the blocks as modules, for `ecoflap.blocks`."""
        return [block.module for block in self.blocks]

    def tower_of(self, name: str) -> str | None:
        """Returns the tower of a list of blocks by its name; None if it is never pruned."""
        lowered = name.lower()
        if any(part in lowered for part in self.never_pruned):
            return None
        return "vision" if any(part in lowered for part in self.vision_names) else "language"

    def group_of(self, tower: str) -> str:
        """Returns what Wanda compares in a tower: each ``row`` or the whole ``matrix``."""
        return "row" if tower in self.row_towers else "matrix"

    def to_device(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Moves a batch to the model's device, and floating tensors to its dtype."""
        dtype = next(self.module.parameters()).dtype
        return {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the model's own training loss on a batch, a scalar."""
        return self.module(**batch).loss

    def valid_tokens(
        self, matrix: Matrix, batch: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """Returns which input tokens of a matrix are real: bool [batch, tokens], None for all."""
        raise NotImplementedError

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Turns examples into the tensors that `loss` takes, each [n, ...]."""
        raise NotImplementedError

    def save(self, folder: str | Path) -> None:
        """Writes a folder that plain ``from_pretrained`` loads, processor included."""
        self.module.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _find_blocks(self) -> list[Block]:
        blocks: list[Block] = []
        for list_name, modules in find_block_lists(self.module):
            tower = self.tower_of(list_name)
            for position, module in enumerate(modules):
                index, name = len(blocks), f"{list_name}.{position}"
                matrices = tuple(
                    Matrix(f"{name}.{path}", tower, index, linear)
                    for path, linear in module.named_modules()
                    if tower is not None and isinstance(linear, nn.Linear)
                )
                blocks.append(Block(index, name, tower, module, matrices))
        return blocks


def _switch_off_caches(module: nn.Module) -> None:
    # A cache filled in the forward makes the recomputation in the backward save other tensors.
    for part in module.modules():
        if hasattr(getattr(part, "config", None), "use_cache"):
            part.config.use_cache = False
