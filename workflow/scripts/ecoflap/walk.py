"""Walks a model block by block: statistics of a block's inputs, then its new outputs."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import torch

from ecoflap import blocks
from ecoflap.errors import PruningError, message
from ecoflap.models.base import Block, Matrix, Model


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
            with _Observer(self.model, block, batch, self.criterion.statistics, sums):
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


class _Observer:
    """Adds up the statistics of the inputs of a block's matrices during a ``with``."""

    def __init__(self, model: Model, block: Block, batch: Mapping, function: Callable, sums: dict):
        self.model, self.block, self.batch = model, block, batch
        self.function, self.sums = function, sums
        # Query, key and value read one tensor: its statistics are computed once.
        self.known: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> None:
        self.handles = [
            matrix.module.register_forward_pre_hook(
                lambda _, args, matrix=matrix: self._add(matrix, args[0])
            )
            for matrix in self.block.matrices
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _add(self, matrix: Matrix, inputs: torch.Tensor) -> None:
        value = next((known for tensor, known in self.known if tensor is inputs), None)
        if value is None:
            value = self.function(self._tokens(matrix, inputs))
            self.known.append((inputs, value))
        earlier = self.sums.get(matrix.name)
        self.sums[matrix.name] = value.clone() if earlier is None else earlier.add_(value)

    def _tokens(self, matrix: Matrix, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the real tokens of the inputs, [n_tokens, n_in]."""
        valid = self.model.valid_tokens(matrix, self.batch)
        if valid is None:
            return inputs.reshape(-1, inputs.shape[-1])
        if valid.shape != inputs.shape[:-1]:
            raise PruningError(
                message(
                    f"{matrix.name} reads tokens {tuple(inputs.shape[:-1])}",
                    f"{tuple(valid.shape)}, the shape of the padding mask",
                    "The model's adapter must say which tokens of this matrix are padding.",
                )
            )
        return inputs[valid]
