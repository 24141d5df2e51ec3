"""LAMP (Lee et al. 2021): squared weights relative to the larger ones of their matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.scores._histogram import Scored, scored

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, Scored]:
    """``W_u^2 / sum(W_v^2)`` over all v of the same matrix with ``W_v^2 >= W_u^2``.

    Args:
        model: The model.
        batches: Not used.
        seed: Not used.

    Returns:
        By matrix name, the histogram of the LAMP scores, and their mean as the score.
    """
    found = {}
    matrices = tqdm(model.resident_matrices(), desc="lamp", unit="matrix", disable=None)
    for matrix in matrices:
        scores = lamp_scores(matrix.module.weight.detach())
        found[matrix.name] = scored(scores, scores.mean(), matrix.name)
    return found


def lamp_scores(weight: torch.Tensor) -> torch.Tensor:
    """Returns the LAMP scores of a matrix in the order of its absolute values.

    Args:
        weight: [n_out, n_in].

    Returns:
        float64 [n_out * n_in] on the host, where sums have one order; of zero weights 0.
    """
    ordered = weight.abs().flatten().sort().values
    values, counts = (t.cpu() for t in ordered.unique_consecutive(return_counts=True))
    squares = values.double().square()
    at_least = (squares * counts).flip(0).cumsum(0).flip(0)
    return torch.where(squares == 0, squares, squares / at_least).repeat_interleave(counts)
