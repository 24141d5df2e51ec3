"""SparseGPT (Frantar, Alistarh 2023): optimal brain surgeon, one block of columns at a time."""

import torch

from ecoflap.criteria.selection import Selection
from ecoflap.errors import PruningError, message

UPDATES_WEIGHTS = True
NEEDS_INPUTS = True
BLOCK_SIZE = 128  # columns
DAMPING = 0.01  # of the mean diagonal


def statistics(inputs: torch.Tensor) -> torch.Tensor:
    """Returns the Hessian of the layer's squared output error, up to a factor.

    Args:
        inputs: X [n_tokens, n_in], padding removed.

    Returns:
        X^T X, float32 [n_in, n_in].
    """
    inputs = inputs.float()
    return inputs.T @ inputs


def metric(weight: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """Returns ``W_ij^2 / [H^-1]_jj^2`` of a matrix that nothing was removed from yet.

    As in `prune` the inverse for column j is that of the columns from j on.

    Args:
        weight: [n_out, n_in].
        statistics: H = X^T X [n_in, n_in].

    Returns:
        float32 [n_out, n_in]; 0 where a feature never fires.
    """
    dead = statistics.diagonal() == 0
    scale = _inverse_factor(statistics, dead).diagonal().square()
    return (weight.float().square() / scale).masked_fill(dead, 0)


def prune(
    weight: torch.Tensor, statistics: torch.Tensor, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest ``W_ij^2 / [H^-1]_jj^2`` and updates the others.

    Args:
        weight: [n_out, n_in].
        statistics: H = X^T X [n_in, n_in].
        selection: How many weights go. Without a pattern they are compared within each block of
            columns, and the counts of the blocks add up to ``round(sparsity n)``; with N:M within
            each M columns of a row, after the updates of the columns before.

    Raises:
        PruningError: if H is not positive definite after damping.
    """
    n_out, n_in = weight.shape
    w = weight.float().clone()
    dead = statistics.diagonal() == 0
    w[:, dead] = 0
    upper = _inverse_factor(statistics, dead)
    mask = torch.zeros_like(w, dtype=torch.bool)
    removed = 0
    of = selection.of or 1
    width = max(of, BLOCK_SIZE - BLOCK_SIZE % of)
    for start in range(0, n_in, width):
        end = min(start + width, n_in)
        factor = upper[start:end, start:end]
        scale = factor.diagonal().square()
        errors = torch.zeros_like(w[:, start:end])
        if not selection.of:
            metric = w[:, start:end].square() / scale
            count = min(round(selection.sparsity * n_out * end) - removed, metric.numel())
            removed += count
            mask[:, start:end] = _lowest(metric, count)
        for j in range(end - start):
            column = start + j
            if selection.of and j % selection.of == 0:
                ahead = slice(column, column + selection.of)
                metric = w[:, ahead].square() / scale[j : j + selection.of]
                mask[:, ahead] = selection.smallest(metric)
            removed_part = w[:, column] * mask[:, column]
            errors[:, j] = removed_part / factor[j, j]
            w[:, column:end] -= errors[:, j : j + 1] * factor[j : j + 1, j:]
        w[:, end:] -= errors @ upper[start:end, end:]
    w.masked_fill_(mask, 0)
    return w.to(weight.dtype), mask


def _lowest(metric: torch.Tensor, count: int) -> torch.Tensor:
    """Marks exactly that many of the smallest values of a matrix."""
    mask = torch.zeros(metric.numel(), dtype=torch.bool, device=metric.device)
    mask[metric.flatten().topk(count, largest=False, sorted=False).indices] = True
    return mask.reshape(metric.shape)


def _inverse_factor(hessian: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
    """Returns the upper Cholesky factor of the inverse of the damped Hessian [n_in, n_in]."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    diagonal[dead] = 1
    diagonal += DAMPING * diagonal.mean()
    return cholesky(torch.cholesky_inverse(cholesky(damped)), upper=True)


def cholesky(matrix: torch.Tensor, *, upper: bool = False) -> torch.Tensor:
    """Returns the Cholesky factor of a damped matrix [n_in, n_in].

    Raises:
        PruningError: if it is not positive definite.
    """
    try:
        return torch.linalg.cholesky(matrix, upper=upper)
    except torch.linalg.LinAlgError as error:
        raise PruningError(
            message(
                "the Hessian of a matrix is not positive definite after damping",
                "calibration activations that are finite and not extreme",
                "Use more calibration samples, or float32 activations.",
            )
        ) from error
