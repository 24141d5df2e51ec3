"""SparseGPT's local metric as a global score."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.criteria import sparsegpt
from ecoflap.scores.local import mean_metric

if TYPE_CHECKING:
    from ecoflap.models.base import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """Mean over the matrix of `ecoflap.criteria.sparsegpt.metric`.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        Score by matrix name.
    """
    return mean_metric(model, batches, sparsegpt)
