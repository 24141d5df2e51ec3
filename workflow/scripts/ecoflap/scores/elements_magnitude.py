"""The absolute value of every weight, for one threshold over the whole model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.scores._histogram import Scored, scored

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, Scored]:
    """``abs(W)``, elementwise.

    Args:
        model: The model.
        batches: Not used.
        seed: Not used.

    Returns:
        By matrix name, the histogram, and its sum as the score: that of ``magnitude``.
    """
    found = {}
    for matrix in model.resident_matrices():
        importances = matrix.module.weight.detach().float().abs()
        total = importances.sum(dtype=torch.float64)
        found[matrix.name] = scored(importances, total, matrix.name)
    return found
