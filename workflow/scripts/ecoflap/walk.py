"""Walks a model block by block: statistics of a block's inputs, then its new outputs."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

import torch

from ecoflap import activations, blocks
from ecoflap.errors import PruningError, message
from ecoflap.models.base import Block, Model
from ecoflap.observer import Observer


class Walk:
    """Runs one block at a time on all batches, replaying the blocks before it.

    Of each batch only the activations that the next block or the model's code between blocks
    will read are kept, wherever `activations.places` puts them.
    """

    def __init__(self, model: Model, batches: Sequence[Mapping], criterion: ModuleType):
        """Finds the order of the blocks with one forward.

        Args:
            model: The model.
            batches: Batches on its device; none for a criterion that looks at weights alone.
            criterion: A module of `ecoflap.criteria`, whose statistics are gathered.
        """
        self.model = model
        self.batches = batches
        self.criterion = criterion
        self.modules = model.block_modules()
        self.places = activations.places(model)
        self.traces = [blocks.Trace() for _ in batches]
        self.before: list = []
        if batches:
            self.calls, self.needed = blocks.survey(
                self.modules, lambda: model.loss(batches[0]), model.resident
            )

    def __iter__(self) -> Iterator[Block]:
        """Yields the blocks as the model runs them, each with its weights on the device.

        Without batches they come as the model's modules come. After each block the activations
        that no later block needs are freed.
        """
        for block, following in self._pairs():
            with self.model.resident(block.index):
                yield block
            if self.batches:
                end = self.calls.first_call(following.index) if following else 0
                self.traces = [trace.cut(end, self.needed) for trace in self.traces]

    def __len__(self) -> int:
        """Returns the number of blocks that are walked."""
        return len(self._order())

    def _order(self) -> list[Block]:
        if not self.batches:
            return [block for block in self.model.blocks if block.matrices]
        return [self.model.blocks[index] for index in self.calls.order()]

    def _pairs(self) -> Iterator[tuple[Block, Block | None]]:
        order = self._order()
        return zip(order, [*order[1:], None], strict=True)

    @torch.no_grad()
    def statistics(self, block: Block) -> dict[str, torch.Tensor]:
        """Returns the criterion's statistics of each matrix, summed over the batches."""
        self.before = []
        if not self.batches or not block.matrices:
            return {}
        sums: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(self.batches):
            with Observer(self.model, block, batch, self.criterion.statistics, sums):
                self.before.append(self._run(number, block))
        idle = [matrix.name for matrix in block.matrices if matrix.name not in sums]
        if idle:
            raise PruningError(
                message(
                    f"the model never runs {idle[0]} on these batches",
                    "batches that reach every matrix of a block",
                    "Pass batches with all inputs of the model.",
                )
            )
        return sums

    @torch.no_grad()
    def advance(self, block: Block) -> float:
        """Records the block's outputs after pruning; returns their relative change."""
        if not self.batches:
            return float("nan")
        start = self.calls.first_call(block.index)
        changed = total = torch.zeros((), dtype=torch.float64)
        for number in range(len(self.batches)):
            self.traces[number] = self._run(number, block)
            if not self.before:
                continue
            outputs = self.traces[number].outputs[start:]
            for old, new in zip(self.before[number].outputs[start:], outputs, strict=True):
                a, b = (self.places.get(_first_tensor(value)).float() for value in (old, new))
                changed = changed + (a - b).square().sum(dtype=torch.float64)
                total = total + a.square().sum(dtype=torch.float64)
            self.before[number] = None
        return (changed / total).sqrt().item() if total > 0 else 0.0

    def _run(self, number: int, block: Block) -> blocks.Trace:
        _, trace = blocks.run(
            self.modules,
            lambda: self.model.loss(self.batches[number]),
            trace=self.traces[number],
            start=self.calls.first_call(block.index),
            stop=self.calls.last_call(block.index),
            around=self.model.resident,
            places=self.places,
        )
        return trace


def _first_tensor(output) -> torch.Tensor:
    """Returns the hidden states of a block's output."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
