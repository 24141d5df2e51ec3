"""What every adapter offers: blocks, prunable matrices, the loss of a batch, saving."""

import importlib
import inspect
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from ecoflap import artifacts
from ecoflap.errors import ModelError
from ecoflap.measure import Cost
from ecoflap.models import inputs, structure
from ecoflap.models.offload import Offload

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# A cache that the forward fills makes the recomputation save other tensors; the loss that balances
# routers reads the logits of all blocks, also of those that are replayed.
SWITCHED_OFF = ("use_cache", "output_router_logits")
IGNORED = -100  # the label that cross-entropy leaves out
BlockList = tuple[str | None, nn.ModuleList]  # its tower, None if it stays dense, and the blocks
BlockNames = Mapping[str, str | Sequence[str]]  # tower to dotted name or names of ModuleLists


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

    Subclasses say how a model is loaded and how a batch is made.

    Attributes:
        module: The Hugging Face model, in eval mode, without caches.
        processor: Its processor or tokenizer; None if it has none.
        blocks: Its blocks in the order of its modules.
        segments: What runs between them (embeddings, projections), as blocks without matrices
            whose indices come after those of the blocks.
        masks: Packed masks (`pack_mask`) of the matrices pruned so far, by name.
        tokens_per_feature: Calibration tokens per input feature of each matrix in the last pruning
            that read inputs, by name.
        history: What was done to it in this process, for its card: ``pruning`` and
            ``fine-tuning``, each with its settings.
        weights: Where the weights of blocks are while they do not run; None: on the device.
        source: Folder or hub id that it was loaded from; None if it was not.
    """

    row_towers: ClassVar[tuple[str, ...]] = ("language",)
    never_pruned: ClassVar[tuple[str, ...]] = (
        "qformer",
        "connector",
        "projector",
        "resampler",
        "merger",
    )
    vision_names: ClassVar[tuple[str, ...]] = ("vision", "visual", "image", "video")

    def __init__(
        self,
        module: "PreTrainedModel",
        processor: Any,
        blocks: BlockNames | None = None,
    ):
        """Finds the blocks.

        Args:
            module: A loaded Hugging Face model.
            processor: Its processor or tokenizer, None if it has none.
            blocks: Tower to dotted name or names of the ModuleLists to prune, and no others;
                found by themselves if None.

        Raises:
            ModelError: if there is nothing to prune, a name is wrong, or blocks share a weight.
        """
        self.module = module.eval()
        self.processor = processor
        self.masks: dict[str, torch.Tensor] = {}
        self.tokens_per_feature: dict[str, float] = {}
        self.history: list[tuple[str, Mapping]] = []
        self.weights: Offload | None = None
        self.source: str | None = None
        self._switched = _switch_off(module)
        found = {
            name: (self.tower_of(name), modules)
            for name, modules in structure.find_block_lists(module)
        }
        self._has_encoder = any(
            tower == "language" and not _in_decoder(name) for name, (tower, _) in found.items()
        )
        self.blocks = _make_blocks(found if blocks is None else _choose(module, found, blocks))
        self.segments = _make_segments(module, self.blocks)
        self._check(told=blocks is not None)

    @property
    def family(self) -> str:
        """Name of the module that holds its adapter; one of the registry's but for subclasses."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.weights.device if self.weights else next(self.module.parameters()).device

    @property
    def offload(self) -> str:
        """Where the weights of blocks wait: ``none``, ``cpu`` or ``disk``."""
        return self.weights.store.kind if self.weights else "none"

    def resident(self, block: int) -> AbstractContextManager:
        """Holds the weights of a block on the device; may be nested. Segments never leave it."""
        if self.weights is None or block >= len(self.blocks):
            return nullcontext()
        return self.weights.resident(block)

    def keep_changes(self, block: Block) -> None:
        """Stores the changed weights of a block that is on the device."""
        if self.weights:
            changed = {f"{m.name}.weight": m.module.weight for m in block.matrices}
            self.weights.store.write(changed)

    def cost(self) -> Cost:
        """Returns a measurement of time and memory that counts the weights too."""
        parameters = [p for p in self.module.parameters() if p.device.type != "meta"]
        weights = sum(p.numel() * p.element_size() for p in parameters)
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
        """Returns the blocks as modules."""
        return [block.module for block in self.blocks]

    def steps(self) -> list[Block]:
        """Returns all that can be replayed: the blocks, then the segments between them."""
        return [*self.blocks, *self.segments]

    def tower_of(self, name: str) -> str | None:
        """Returns the tower of a list of blocks by its name; None if it is never pruned."""
        lowered = name.lower()
        if any(part in lowered for part in self.never_pruned):
            return None
        return "vision" if any(part in lowered for part in self.vision_names) else "language"

    @property
    def reads_labels(self) -> bool:
        """Whether the logits at a token of the labels are about that token: beside an encoder."""
        return self._has_encoder

    def group_of(self, tower: str) -> str:
        """Returns what Wanda compares in a tower: each ``row`` or the whole ``matrix``."""
        return "row" if tower in self.row_towers else "matrix"

    def ready(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """Checks calibration batches and moves them to the device.

        Raises:
            ModelError: if there is none, one is not a dict of tensors, or its padding mask is not
                that of its tokens.
        """
        alone = isinstance(batches, Mapping) or not isinstance(batches, Iterable)
        listed: list[Any] = [batches] if alone else list(batches)
        if not listed or alone:
            seen = "no calibration batch" if not listed or batches is None else "one batch alone"
            raise ModelError(seen, allowed="a list of at least one batch", fix="Pass a list.")
        for batch in listed:
            tensors = isinstance(batch, Mapping) and batch
            if not tensors or not all(isinstance(t, torch.Tensor) for t in batch.values()):
                raise ModelError(
                    f"a batch of the type {type(batch).__name__}",
                    allowed="dicts of tensors that the model's forward takes",
                    fix="Ask the processor for tensors: return_tensors='pt'.",
                )
            ids, mask = batch.get("input_ids"), batch.get("attention_mask")
            if ids is not None and mask is not None and mask.dim() == 2 and mask.shape != ids.shape:
                raise ModelError(
                    f"a batch with input_ids {list(ids.shape)} and attention_mask "
                    f"{list(mask.shape)}",
                    allowed="a mask of one number for each token",
                    fix="Take both from one call of the tokenizer.",
                )
        inputs.check_rope(self, listed)
        self.module.eval()  # dropout makes noise of a score
        return [self.to_device(batch) for batch in listed]

    def to_device(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Moves a batch to the model's device, and floating tensors to its dtype."""
        dtype = next(self.module.parameters()).dtype
        return {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the model's own training loss on a batch, a scalar.

        Raises:
            ModelError: if the model returns none.
        """
        asked = "return_loss" in inspect.signature(type(self.module).forward).parameters
        output = self.module(**batch, **({"return_loss": True} if asked else {}))
        loss = getattr(output, "loss", None)
        if loss is None:
            raise ModelError(
                f"{type(self.module).__name__} returns no loss for a batch of {', '.join(batch)}",
                allowed="models that return a loss",
                fix="Add labels to the batches, or write a subclass of ecoflap.models.base.Model "
                "with a loss of its own.",
            )
        return loss

    def valid_tokens(
        self,
        matrix: Matrix,
        batch: Mapping[str, torch.Tensor],
        *,
        encoder_states: bool = False,
    ) -> torch.Tensor | None:
        """Returns which input tokens of a matrix are real.

        Image tokens are all real, also those that stand in a text. A decoder beside an encoder
        reads the tokens of the labels; every other text block those of ``attention_mask``.

        Args:
            matrix: The matrix.
            batch: The batch that the model runs on.
            encoder_states: Whether the matrix reads the states of another stack (keys and values
                of a cross-attention): in a decoder beside an encoder those of ``attention_mask``,
                in all other blocks those of an image.

        Returns:
            bool [batch, tokens]; None if all are real.
        """
        if matrix.tower == "vision":
            return None
        if self.reads_prompt(matrix, encoder_states=encoder_states):
            mask = batch.get("attention_mask")
        else:
            mask = None if encoder_states else self._decoder_mask(batch)
        return None if mask is None else mask.bool()

    def reads_prompt(self, matrix: Matrix, *, encoder_states: bool = False) -> bool:
        """Tells whether a matrix reads the tokens of ``input_ids``, or their states.

        Args:
            matrix: The matrix.
            encoder_states: As for `valid_tokens`.
        """
        has_labels = self._has_encoder and _in_decoder(self.blocks[matrix.block].name)
        return matrix.tower == "language" and encoder_states == has_labels

    def image_tokens(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Returns which tokens of ``input_ids`` stand for an image.

        Args:
            batch: A batch.

        Returns:
            bool [batch, tokens]; None if the model puts no images among the tokens of a text.
        """
        return None

    def _decoder_mask(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Returns which tokens that a decoder beside an encoder reads are real; None if all are."""
        if "decoder_attention_mask" in batch:
            return batch["decoder_attention_mask"]
        if "decoder_input_ids" in batch:
            return None
        if "labels" in batch and batch["labels"].dim() > 1:
            return batch["labels"] != IGNORED
        # Answers as classes or places: the decoder reads the encoder's text, moved on by one.
        mask = batch.get("attention_mask")
        return None if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Turns examples into the tensors that `loss` takes, each [n, ...].

        Raises:
            ModelError: if the family has no format of its own for samples.
        """
        raise ModelError(
            f"no way is known to make a batch for {type(self.module).__name__}",
            allowed="families with calibration formats (ecoflap/registry.py)",
            fix="Pass batches of your own, dicts of the tensors that the model's forward takes.",
        )

    def save(self, folder: str | Path) -> None:
        """Writes a folder that plain ``from_pretrained`` loads, processor included.

        A pruned or fine-tuned model gets a card too (``README.md``).

        Raises:
            ModelError: if the path is a file, or (with ``disk``) the checkpoint that is being read.
        """
        if Path(folder).is_file():
            raise ModelError(f"save to '{folder}', a file", allowed="a folder", fix="Name another.")
        with self._configs_as_loaded():
            if self.weights:
                self.weights.store.save(self.module, Path(folder))
            else:
                self.module.save_pretrained(folder)
        for file in Path(folder).glob("*.safetensors"):
            artifacts.share(file)
        if self.processor is not None:
            self.processor.save_pretrained(folder)
        if self.masks or self.history:
            # By name: what a card says changes no number, so no rule runs again for its sake.
            importlib.import_module("ecoflap.export.card").write(folder, self)

    @contextmanager
    def _configs_as_loaded(self) -> Iterator[None]:
        """Gives the configs back what was switched off, for others to read."""
        for config, key, value in self._switched:
            setattr(config, key, value)
        try:
            yield
        finally:
            for config, key, _ in self._switched:
                setattr(config, key, False)

    def _check(self, *, told: bool) -> None:
        """Raises if nothing can be pruned or a weight has two names; tells what stays dense."""
        name = type(self.module).__name__
        owners: dict[torch.Tensor, str] = {}
        for matrix in self.matrices():
            twin = owners.setdefault(matrix.module.weight, matrix.name)
            if twin != matrix.name:
                raise ModelError(
                    f"{twin} and {matrix.name} of {name} are one weight",
                    allowed="blocks that share no weight",
                    fix="Leave one of the lists out with load(..., blocks=...).",
                )
        dense = Counter(
            kind
            for path, kind in structure.left_dense(self.module, set(owners))
            if self.tower_of(path) is not None
        )
        kinds = ", ".join(f"{kind} ({count})" for kind, count in dense.most_common(4))
        if not owners:
            raise ModelError(
                f"no blocks to prune in {name} (weights in its lists: {kinds or 'none'})",
                allowed="a ModuleList in which a class occurs twice and every block holds "
                "nn.Linear",
                fix="Name the lists with load(..., blocks=...); other layers than nn.Linear "
                "(GPT-2's Conv1D, experts in one tensor) cannot be pruned.",
            )
        if dense and not told:
            log.warning("%s: these weights in its lists stay dense: %s", name, kinds)


def _in_decoder(name: str) -> bool:
    """Tells from the name of a list of blocks or of a block whether it lies in a decoder."""
    return any(part.endswith("decoder") for part in name.split("."))


def _choose(
    module: nn.Module, found: Mapping[str, BlockList], names: BlockNames
) -> dict[str, BlockList]:
    """Returns the lists that a user named, and those beside them, which run but stay dense."""
    chosen = structure.named_block_lists(module, names)
    beside = {
        name: (None, modules)
        for name, (_, modules) in found.items()
        if not any(structure.overlap(name, other) for other in chosen)
    }
    order = {name: place for place, (name, _) in enumerate(module.named_modules())}
    return dict(sorted({**beside, **chosen}.items(), key=lambda item: order[item[0]]))


def _make_blocks(lists: Mapping[str, BlockList]) -> list[Block]:
    blocks: list[Block] = []
    for list_name, (tower, modules) in lists.items():
        for position, module in enumerate(modules):
            index, name = len(blocks), f"{list_name}.{position}"
            matrices: tuple[Matrix, ...] = ()
            if tower is not None:
                linears = structure.linears(module)
                matrices = tuple(
                    Matrix(f"{name}.{path}", tower, index, linear) for path, linear in linears
                )
            blocks.append(Block(index, name, tower, module, matrices))
    return blocks


def _make_segments(module: nn.Module, blocks: Sequence[Block]) -> list[Block]:
    found = {
        part: name for name, part in structure.find_segments(module, {b.module for b in blocks})
    }
    return [
        Block(index, name, None, part, ())
        for index, (part, name) in enumerate(found.items(), start=len(blocks))
    ]


def _switch_off(module: nn.Module) -> list[tuple[Any, str, Any]]:
    """Switches off what a replay or a recomputation would see otherwise than the forward.

    Returns:
        Each config, key and value that was there.
    """
    configs = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    found = [
        (config, key, getattr(config, key))
        for config in configs.values()
        for key in SWITCHED_OFF
        if hasattr(config, key)
    ]
    for config, key, _ in found:
        setattr(config, key, False)
    return found
