"""Power-law exponents of the upper half of spectra: AlphaPruning's recipe for vision models."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.scores.spectrum import exponent

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """The exponent of each matrix's spectrum, tail from the middle (Lu et al. 2024, ``xmin_mid``).

    The authors use it with one sparsity per matrix. It needs no histogram, and so no more than a
    few eigenvalues.

    Args:
        model: The model.
        batches: Not used.
        seed: Not used.

    Returns:
        Exponent by matrix name.
    """
    return {
        m.name: exponent(m.module.weight.detach(), m.name, upper_half)
        for m in model.resident_matrices()
    }


def upper_half(logs: torch.Tensor) -> torch.Tensor:
    """Returns the upper half of sorted numbers; of an odd number the middle one too.

    Args:
        logs: Logarithms of eigenvalues, ascending [n].
    """
    return logs[len(logs) // 2 :]
