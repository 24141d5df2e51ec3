"""The sum of the absolute weights: a score that looks at no data."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """``sum(abs(W))``.

    Args:
        model: The model.
        batches: Not used.
        seed: Not used.

    Returns:
        Score by matrix name.
    """
    return {
        matrix.name: matrix.module.weight.detach().float().abs().sum(dtype=torch.float64).item()
        for matrix in model.resident_matrices()
    }
