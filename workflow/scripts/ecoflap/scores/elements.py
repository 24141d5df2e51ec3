"""The first-order score of every weight, for one threshold over the whole model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.engine.gradients import over_batches
from ecoflap.scores._histogram import Scored, scored

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, Scored]:
    """``abs(W) * mean_batch(abs(dL/dW))``, elementwise.

    One float32 tensor per matrix is kept on the host, and those of the batch at work.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        By matrix name, the histogram, and its sum as the score: that of ``first``.
    """
    totals = {m.name: torch.zeros(m.module.weight.shape) for m in model.matrices()}
    for values in over_batches(model, batches, lambda _, w, g: g.abs().cpu(), "elements"):
        for name, value in values.items():
            totals[name] += value
    found = {}
    for matrix in model.resident_matrices():
        weight = matrix.module.weight.detach()
        mean = totals.pop(matrix.name).to(weight.device) / len(batches)
        importances = weight.float().abs() * mean
        total = importances.sum(dtype=torch.float64)
        found[matrix.name] = scored(importances, total, matrix.name)
    return found
