"""Walks a model block by block: statistics of a block's inputs, then its new outputs."""

from collections.abc import Mapping, Sequence
from types import ModuleType

import torch

from ecoflap import blocks
from ecoflap.errors import PruningError, message
from ecoflap.models.base import Block, Model
from ecoflap.observer import Observer


class Walk:
    """Runs one block at a time on all batches, replaying the blocks before it."""

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
        self.calls = blocks.Trace()
        self.traces = [blocks.Trace() for _ in batches]
        self.before: list = []
        if batches:
            with torch.no_grad():
                _, self.calls = blocks.run(
                    self.modules, lambda: model.loss(batches[0]), keep=lambda block: False
                )

    def order(self) -> list[Block]:
        """Returns the blocks as the model runs them; without batches, as its modules come."""
        if not self.batches:
            return [block for block in self.model.blocks if block.matrices]
        return [self.model.blocks[index] for index in self.calls.order()]

    @torch.no_grad()
    def statistics(self, block: Block) -> dict[str, torch.Tensor]:
        """Returns the criterion's statistics of each matrix, summed over the batches."""
        self.before = []
        if not self.batches or not block.matrices:
            return {}
        sums: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(self.batches):
            with Observer(self.model, block, batch, self.criterion.statistics, sums):
                self.before.append(self._run(number, block).outputs)
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
        changed = total = 0.0
        for number in range(len(self.batches)):
            self.traces[number] = self._run(number, block)
            if not self.before:
                continue
            for old, new in zip(self.before[number], self.traces[number].outputs, strict=True):
                if old is new or old is None:
                    continue
                a, b = _first_tensor(old).float(), _first_tensor(new).float()
                changed += (a - b).square().sum(dtype=torch.float64).item()
                total += a.square().sum(dtype=torch.float64).item()
        self.before = []
        if not self.batches:
            return float("nan")
        return (changed / total) ** 0.5 if total else 0.0

    def _run(self, number: int, block: Block) -> blocks.Trace:
        _, trace = blocks.run(
            self.modules,
            lambda: self.model.loss(self.batches[number]),
            trace=self.traces[number],
            start=self.calls.first_call(block.index),
            stop=self.calls.last_call(block.index),
        )
        return trace


def _first_tensor(output) -> torch.Tensor:
    """Returns the hidden states of a block's output."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
