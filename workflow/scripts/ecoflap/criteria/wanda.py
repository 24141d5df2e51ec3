"""Wanda (Sun et al. 2023): weight magnitude times the norm of the input feature."""

import torch

from ecoflap.criteria._selection import Selection

UPDATES_WEIGHTS = False
NEEDS_INPUTS = True


def statistics(inputs: torch.Tensor) -> torch.Tensor:
    """Returns the sum of squares of each input feature.

    Args:
        inputs: [n_tokens, n_in], padding removed.

    Returns:
        float32 [n_in].
    """
    return inputs.float().square().sum(dim=0)


def metric(weight: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """Returns ``abs(W_ij) ||X_j||_2``, float32 [n_out, n_in].

    Args:
        weight: [n_out, n_in].
        statistics: Sum of squares per input feature [n_in].
    """
    return weight.abs().float() * statistics.sqrt()


def prune(
    weight: torch.Tensor, statistics: torch.Tensor, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest metric.

    Args:
        weight: [n_out, n_in].
        statistics: Sum of squares per input feature [n_in].
        selection: How many weights go, compared among which.
    """
    mask = selection.smallest(metric(weight, statistics))
    return weight.masked_fill(mask, 0), mask
