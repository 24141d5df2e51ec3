"""Magnitude: the smallest absolute values of the matrix go."""

from dataclasses import replace

import torch

from ecoflap.criteria._selection import Selection

UPDATES_WEIGHTS = False
NEEDS_INPUTS = False


def statistics(inputs: torch.Tensor) -> None:
    """Needs nothing of the activations [n_tokens, n_in]."""
    return None


def prune(
    weight: torch.Tensor, statistics: None, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor]:
    """Removes the weights with the smallest ``abs(W_ij)``, compared within the whole matrix.

    Args:
        weight: [n_out, n_in].
        statistics: Not used.
        selection: How many weights go; its group is not used, magnitudes compare between rows.
    """
    mask = replace(selection, group="matrix").smallest(weight.abs().float())
    return weight.masked_fill(mask, 0), mask
