"""What hooks see in plain forwards: the independent side of the tests of a layer-wise pass."""

from collections.abc import Callable, Sequence

import torch


def squares(model, batches: Sequence[dict], real: Callable) -> dict[str, torch.Tensor]:
    """Sums of squares of the real inputs of every matrix, float64 [n_in], by its name.

    Args:
        model: The model.
        batches: Batches.
        real: Gives, for a matrix and a batch, which tokens are real; None if all are.
    """
    sums: dict[str, torch.Tensor] = {}
    current: dict = {}

    def hook(matrix):
        def take(_, args):
            valid = real(matrix, current)
            rows = args[0].reshape(-1, args[0].shape[-1])
            rows = rows if valid is None else rows[valid.flatten()]
            sums[matrix.name] = sums.get(matrix.name, 0) + rows.double().square().sum(0)

        return matrix.module.register_forward_pre_hook(take)

    handles = [hook(matrix) for matrix in model.matrices()]
    with torch.no_grad():
        for batch in batches:
            current = batch
            model.loss(batch)
    for handle in handles:
        handle.remove()
    return sums
