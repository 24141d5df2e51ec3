"""RIA (Zhang et al. 2024): relative importance of a weight, times the activations."""

import torch

from ecoflap.criteria._selection import Selection
from ecoflap.criteria.wanda import statistics

__all__ = ["NEEDS_INPUTS", "UPDATES_WEIGHTS", "prune", "statistics"]
UPDATES_WEIGHTS = False
NEEDS_INPUTS = True
POWER = 0.5  # of the activation norm, as published


def prune(
    weight: torch.Tensor, statistics: torch.Tensor, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest relative importance.

    The metric is ``(abs(W_ij) / sum_i abs(W_ij) + abs(W_ij) / sum_j abs(W_ij)) ||X_j||^0.5``: a
    weight counts for its share of its input's column and of its output's row.

    Args:
        weight: [n_out, n_in].
        statistics: Sum of squares per input feature [n_in].
        selection: How many weights go, compared among which; the authors' code compares the whole
            matrix by default, and permutes channels before 2:4, which is not done here.
    """
    size = weight.abs().float()
    tiny = torch.finfo(torch.float32).tiny  # a row or column of zeros has no share to give
    share = size / size.sum(dim=0, keepdim=True).clamp(min=tiny)
    share = share + size / size.sum(dim=1, keepdim=True).clamp(min=tiny)
    mask = selection.smallest(share * statistics.sqrt().pow(POWER))
    return weight.masked_fill(mask, 0), mask
