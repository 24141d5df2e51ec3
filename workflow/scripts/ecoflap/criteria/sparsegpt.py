"""SparseGPT (Frantar, Alistarh 2023): optimal brain surgeon, one block of columns at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ecoflap.criteria._selection import Selection, lowest
from ecoflap.errors import PruningError

UPDATES_WEIGHTS = True
NEEDS_INPUTS = True
BLOCK_SIZE = 128  # columns
PART_SIZE = 16  # of them, which are updated one by one
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
    weight: torch.Tensor,
    statistics: torch.Tensor,
    selection: Selection,
    ridge: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest ``W_ij^2 / [H^-1]_jj^2`` and updates the others.

    Args:
        weight: [n_out, n_in].
        statistics: H = X^T X [n_in, n_in].
        selection: How many weights go. Without a pattern they are compared within each block of
            columns, and the counts of the blocks add up to ``round(sparsity n)``; with N:M within
            each M columns of a row, after the updates of the columns before.
        ridge: What is added to the diagonal of H, as a part of each feature's own H_jj; if None
            `DAMPING` of the mean of all of them, as published.

    Raises:
        PruningError: if H is not positive definite after damping.
    """
    n_out, n_in = weight.shape
    dead = statistics.diagonal() == 0
    upper = _inverse_factor(statistics, dead, ridge)
    # Transposed, so that a column of the weight is contiguous.
    w = weight.T.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    w[dead] = 0
    mask = torch.zeros_like(w, dtype=torch.bool)
    removed = 0
    of = selection.of or 1
    width = max(of, BLOCK_SIZE - BLOCK_SIZE % of)
    for start in range(0, n_in, width):
        end = min(start + width, n_in)
        block, chosen, factor = w[start:end], mask[start:end], upper[start:end, start:end]
        if not selection.of:
            count = min(round(selection.sparsity * n_out * end) - removed, block.numel())
            removed += count
            metric = _metric(block, factor)
            chosen.copy_(lowest(metric.reshape(1, -1), count).reshape(metric.shape).T)
        with _one_thread():
            errors = _errors(block, chosen, factor, selection)
        w[end:].addmm_(upper[start:end, end:].T, errors, alpha=-1)
    w.masked_fill_(mask, 0)
    return torch.empty_like(weight).copy_(w.T), mask.T.contiguous()


def _errors(
    block: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, selection: Selection
) -> torch.Tensor:
    """Updates a block of columns in place, each for the errors of those before it.

    A column is updated when its turn comes: by one product for all earlier columns of the block but
    the few of its own part, and by one more for those.

    Args:
        block: The columns of the weight [n_columns, n_out], up to date with all before the block.
        mask: What goes of them, bool; with N:M chosen here, part after part.
        factor: Their part of the inverse factor [n_columns, n_columns].
        selection: With N:M the M columns of a group are a part.

    Returns:
        The errors [n_columns, n_out]: the removed weights over the factor's diagonal.
    """
    n_columns = len(block)
    errors = torch.empty_like(block)
    columns, parts = block.unbind(), errors.unbind()
    width = selection.of or PART_SIZE
    for first in range(0, n_columns, width):
        last = min(first + width, n_columns)
        part = slice(first, last)
        if first:
            block[part].addmm_(factor[:first, part].T, errors[:first], alpha=-1)
        if selection.of:
            mask[part] = selection.smallest(_metric(block[part], factor[part, part])).T
        share = (mask[part] / factor.diagonal()[part, None]).unbind()
        before = errors[part].T
        for j in range(first, last):
            if j > first:
                columns[j].addmv_(before[:, : j - first], factor[first:j, j], alpha=-1)
            torch.mul(columns[j], share[j - first], out=parts[j])
    return errors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread of a CPU: small kernels wait for a busy core longer than they run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _metric(block: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Returns the importance [n_out, n_columns] of a block of columns [n_columns, n_out]."""
    return block.T.square().div_(factor.diagonal().square())


def _inverse_factor(
    hessian: torch.Tensor, dead: torch.Tensor, ridge: float | None = None
) -> torch.Tensor:
    """Returns the upper Cholesky factor of the inverse of the damped Hessian [n_in, n_in]."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    diagonal[dead] = 1
    diagonal += DAMPING * diagonal.mean() if ridge is None else ridge * diagonal
    return cholesky(torch.cholesky_inverse(cholesky(damped)), upper=True)


def cholesky(matrix: torch.Tensor, *, upper: bool = False) -> torch.Tensor:
    """Returns the Cholesky factor of a damped matrix [n_in, n_in].

    Raises:
        PruningError: if it is not positive definite.
    """
    try:
        return torch.linalg.cholesky(matrix, upper=upper)
    # torch documents this name, and its own stubs leave it out.
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise PruningError(
            "the Hessian of a matrix is not positive definite after damping",
            allowed="calibration activations that are finite and not extreme",
            fix="Use more calibration samples, or float32 activations.",
        ) from error
