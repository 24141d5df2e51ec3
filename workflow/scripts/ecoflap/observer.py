"""Watches the inputs of a block's matrices while the model runs."""

from collections.abc import Callable, Mapping

import torch

from ecoflap.errors import PruningError, message
from ecoflap.models.base import Block, Matrix, Model


class Observer:
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
