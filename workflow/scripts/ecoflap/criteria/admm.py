"""ADMM (Boža 2024, "Fast and effective weight update for pruned large language models").

Of W [n_out, n_in] and G = X^T X the features are scaled to norm 1: B = W n with n_j^2 = G_jj. The
sparse matrix Z and V, which fits the outputs, are led to each other in steps, from V = B and U = 0:

    A = V + U,  Z = A without its smallest entries,  U = A - Z,  V = (B C + Z - U) (C + I)^-1

with C = G_ij / (n_i n_j) + r I. At the end Z / n is the pruned matrix.
"""

import torch

from ecoflap.criteria import sparsegpt
from ecoflap.criteria._selection import Selection

UPDATES_WEIGHTS = True
NEEDS_INPUTS = True
STEPS = 20
GROWING = 15  # so many of them remove more each time
RIDGE = 0.1  # r, by default
SMALLEST_NORM = 1e-8  # of a feature that never fires

statistics = sparsegpt.statistics


def prune(
    weight: torch.Tensor,
    statistics: torch.Tensor,
    selection: Selection,
    ridge: float = RIDGE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes weights and updates the others, all columns together.

    Args:
        weight: [n_out, n_in].
        statistics: G = X^T X [n_in, n_in].
        selection: How many weights go, compared among which; after step t of `GROWING` the part
            1 - (1 - t / `GROWING`)^3 of them is gone, as in the author's schedule.
        ridge: r, the part of each feature's own G_jj that is added to it.

    Raises:
        PruningError: if G is no matrix of sums of squares.
    """
    norm = statistics.diagonal().sqrt() + SMALLEST_NORM
    gram = statistics / norm / norm[:, None]
    gram.diagonal().add_(ridge)
    v = weight.float() * norm
    target = v @ gram
    gram.diagonal().add_(1)
    solve = torch.cholesky_inverse(sparsegpt.cholesky(gram))
    u, size, z = torch.zeros_like(v), torch.empty_like(v), torch.empty_like(v)
    for step in range(1, STEPS + 1):
        u += v
        torch.abs(u, out=size)
        mask = selection.part(1 - max(0.0, 1 - step / GROWING) ** 3).smallest(size)
        torch.mul(u, ~mask, out=z)
        if step < STEPS:
            u -= z
            torch.matmul(z.add_(target).sub_(u), solve, out=v)
    return z.div_(norm).masked_fill_(mask, 0).to(weight.dtype), mask
