"""Walks a model block by block: statistics of a block's inputs, then its new outputs."""

import math
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
        self.modules = [step.module for step in model.steps()]
        self.places = activations.places(model)
        self.traces = [blocks.Trace() for _ in batches]
        self.before: blocks.Trace | None = None
        if batches:
            self.calls, self.needed = blocks.survey(
                self.modules, lambda: model.loss(batches[0]), model.resident
            )
            self._check_reached()

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

    def _check_reached(self) -> None:
        """Refuses batches that leave out a block, before anything is changed."""
        idle = [b for b in self.model.blocks if b.matrices and b.index not in self.calls.calls]
        if idle:
            raise PruningError(
                message(
                    f"the model never runs {idle[0].name} on these batches ({len(idle)} in all)",
                    "batches that reach every block",
                    "Pass batches with all inputs of the model.",
                )
            )

    def __len__(self) -> int:
        """Returns the number of blocks that are walked."""
        return len(self._order())

    def _order(self) -> list[Block]:
        if not self.batches:
            return [block for block in self.model.blocks if block.matrices]
        steps = self.model.steps()
        order = [steps[index] for index in self.calls.order()]
        while order and not order[-1].matrices:
            order.pop()
        return order

    def _pairs(self) -> Iterator[tuple[Block, Block | None]]:
        order = self._order()
        return zip(order, [*order[1:], None], strict=True)

    @torch.no_grad()
    def statistics(self, block: Block) -> dict[str, torch.Tensor]:
        """Returns the criterion's statistics of each matrix, summed over the batches."""
        self.before = None
        if not self.batches or not block.matrices:
            return {}
        sums: dict[str, torch.Tensor] = {}
        observer = Observer(self.model, block, self.criterion.statistics, sums)
        for number, batch in enumerate(self.batches):
            with observer.watching(batch):
                trace = self._run(number, block)
            self.before = self.before or trace
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
        """Records the block's outputs after pruning; returns their relative change.

        The change is measured on the first batch.
        """
        if not self.batches:
            return float("nan")
        for number in range(len(self.batches)):
            self.traces[number] = self._run(number, block)
        return self._change(block) if self.before else 0.0

    def _change(self, block: Block) -> float:
        """Returns the relative change of the block's outputs on the first batch."""
        start = self.calls.first_call(block.index)
        pairs = zip(self.before.outputs[start:], self.traces[0].outputs[start:], strict=True)
        changed = total = 0.0
        for old, new in pairs:
            a, b = (self.places.get(_first_tensor(value)).float() for value in (old, new))
            changed += (a - b).square().sum(dtype=torch.float64).item()
            total += a.square().sum(dtype=torch.float64).item()
        if not total:
            return math.inf if changed else 0.0
        return (changed / total) ** 0.5

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
