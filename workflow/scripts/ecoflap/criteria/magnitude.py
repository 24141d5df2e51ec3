"""Magnitude: the smallest absolute values of the matrix go."""

import torch

from ecoflap.criteria.selection import smallest

UPDATES_WEIGHTS = False
NEEDS_INPUTS = False


def statistics(inputs: torch.Tensor) -> None:
    """Needs nothing of the activations [n_tokens, n_in]."""
    return None


def prune(
    weight: torch.Tensor, statistics: None, sparsity: float, group: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest ``abs(W_ij)``, compared within the whole matrix.

    Args:
        weight: [n_out, n_in].
        statistics: Not used.
        sparsity: Fraction to remove.
        group: Not used: magnitudes are comparable between rows.
    """
    mask = smallest(weight.abs().float(), sparsity, "matrix")
    return weight.masked_fill(mask, 0), mask
