"""Optimal brain damage with the diagonal of the empirical Fisher information."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.engine.gradients import mean_over_batches

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """``sum(W^2 * mean_batch((dL/dW)^2))`` (LeCun et al. 1990, without the factor of a half).

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        Score by matrix name.
    """
    return mean_over_batches(
        model,
        batches,
        lambda weight, gradient: (weight.float() * gradient).square().sum(dtype=torch.float64),
        "fisher",
    )
