"""Exact selection of the weights with the smallest metric."""

import torch


def smallest(metric: torch.Tensor, sparsity: float, group: str) -> torch.Tensor:
    """Marks the weights with the smallest metric; ties never add one.

    Args:
        metric: Importance [n_out, n_in].
        sparsity: Fraction to mark: ``round(sparsity n_in)`` in each row, or
            ``round(sparsity n)`` in the whole matrix.
        group: ``row`` or ``matrix``.

    Returns:
        Boolean mask [n_out, n_in], True where a weight goes.
    """
    rows = metric if group == "row" else metric.reshape(1, -1)
    count = round(sparsity * rows.shape[1])
    mask = torch.zeros_like(rows, dtype=torch.bool)
    if count:
        chosen = rows.topk(count, dim=1, largest=False, sorted=False).indices
        mask.scatter_(1, chosen, True)
    return mask.reshape(metric.shape)
