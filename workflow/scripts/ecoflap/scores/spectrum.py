"""Power-law exponents of spectra, from which AlphaPruning makes its sparsities."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.errors import PruningError

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}
BINS = 100


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """The exponent of each matrix's spectrum (AlphaPruning, Lu et al. 2024), tail from the peak.

    The authors' code for language models searches where the tail begins, from the peak on, for the
    smallest Kolmogorov-Smirnov distance; this one takes the peak itself. Below a few hundred
    eigenvalues, 100 bins have a peak by chance: use ``spectrum-middle`` there.

    Args:
        model: The model.
        batches: Not used.
        seed: Not used.

    Returns:
        Exponent by matrix name.
    """
    matrices = tqdm(model.resident_matrices(), desc="spectrum", unit="matrix", disable=None)
    return {m.name: exponent(m.module.weight.detach(), m.name, from_peak) for m in matrices}


def from_peak(logs: torch.Tensor) -> torch.Tensor:
    """Returns what lies at or above the peak of a histogram of 100 bins, the first of equal ones.

    Args:
        logs: Logarithms of eigenvalues, ascending [n].
    """
    low, high = logs[0].item(), logs[-1].item()
    peak = int(torch.histc(logs, BINS, low, high).argmax())
    return logs[logs >= low + (high - low) * peak / BINS]


def exponent(
    weight: torch.Tensor, name: str, tail_of: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Fits a power law to the tail of the eigenvalues of ``W W^T`` by Hill's estimator.

    ``alpha = 1 + n / (sum(ln lambda_i) - n ln(lambda_min))`` over the n eigenvalues of the tail.
    Those that are zero but for rounding are left out.

    Args:
        weight: [n_out, n_in].
        name: The matrix, for messages.
        tail_of: Returns the tail of ascending logarithms.

    Returns:
        alpha, above 1.

    Raises:
        PruningError: if a weight is not finite or the tail has no two different eigenvalues.
    """
    if not torch.isfinite(weight).all():
        raise _no_tail(f"{name} has weights that are not finite")
    values = torch.linalg.svdvals(weight.float()).double().cpu()
    values = values[values > values.max() * max(weight.shape) * torch.finfo(torch.float32).eps]
    logs = 2 * values.log().sort().values
    if len(logs) == 0 or logs[0] == logs[-1]:
        raise _no_tail(f"the spectrum of {name} has no two different eigenvalues above 0")
    tail = tail_of(logs)
    spread = (tail - tail[0]).sum().item()
    if spread == 0:
        raise _no_tail(f"the tail of the spectrum of {name} has no two different eigenvalues")
    return 1 + len(tail) / spread


def _no_tail(seen: str) -> PruningError:
    return PruningError(
        seen,
        allowed="a spectrum that has a tail",
        fix="Choose another estimator than spectrum.",
    )
