"""What the zeroth-order score estimates, in closed form, from one backward per batch."""

import math
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
    """Mean over batches of ``sqrt(2 / pi) ||dL/dW||_F``.

    For small epsilon the zeroth-order score of a batch is ``abs(<g, z>)`` with z ~ N(0, I), and
    ``E abs(<g, z>) = sqrt(2 / pi) ||g||``.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        Score by matrix name.
    """
    scale = math.sqrt(2 / math.pi)
    return mean_over_batches(
        model,
        batches,
        lambda weight, gradient: scale * gradient.norm(),
        "gradnorm",
    )
