"""The paper's first-order score."""

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
    """``sum(abs(W) * mean_batch(abs(dL/dW)))``.

    The sum over weights and the mean over batches commute, so reducing batch by batch gives the
    same number as keeping a running gradient.

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
        lambda weight, gradient: (weight.float() * gradient).abs().sum(dtype=torch.float64),
        "first",
    )
