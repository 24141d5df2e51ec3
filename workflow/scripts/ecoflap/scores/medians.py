"""Wanda's metric of every weight, from whose medians DLP makes its sparsities."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.criteria import wanda
from ecoflap.scores.histogram import Scored, scored
from ecoflap.scores.local import metrics

if TYPE_CHECKING:
    from ecoflap.models.base import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, Scored]:
    """``abs(W_ij) ||X_j||_2`` on the dense model (DLP, Chen et al. 2025).

    Args:
        model: The model, not changed.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        By matrix name, the histogram, and the median of the matrix (the lower one of two) as the
        score.
    """
    return {
        name: scored(metric, metric.median(), name)
        for name, metric in metrics(model, batches, wanda, "medians")
    }
