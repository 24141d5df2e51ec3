"""Histograms of elementwise importances, from which some allocations are made.

A bucket is the top 16 bits of the float32 pattern of a number that is not negative: buckets are
ordered like the numbers and resolve them to 1/128. `ecoflap.allocation.histogram` reads them.
"""

from dataclasses import dataclass

import torch

from ecoflap.allocation.histogram import INFINITY
from ecoflap.errors import PruningError

CHUNK = 2**24  # elements whose buckets are held at once


@dataclass(frozen=True)
class Scored:
    """The score of a matrix with the histogram of what it was made of.

    Attributes:
        score: The score.
        buckets: Buckets that hold an element, ascending.
        counts: Elements in each of them.
    """

    score: float
    buckets: list[int]
    counts: list[int]


def scored(importances: torch.Tensor, score: float | torch.Tensor, name: str) -> Scored:
    """Counts the elements of a tensor by bucket, on its device.

    Args:
        importances: Finite numbers of at least 0, of any shape.
        score: The score of the matrix.
        name: The matrix, for messages.

    Returns:
        The score with exact counts.

    Raises:
        PruningError: for a number that is not finite or negative.
    """
    total = torch.zeros(INFINITY, dtype=torch.int64, device=importances.device)
    for part in importances.reshape(-1).split(CHUNK):
        # Adding zero makes -0.0 a plain zero; the shift keeps the sign of negative numbers.
        buckets = (part.float() + 0.0).view(torch.int32) >> 16
        low, high = (int(value) for value in buckets.aminmax())
        if low < 0 or high >= INFINITY:
            raise PruningError(
                f"the importances of {name} range from {part.min()} to {part.max()}",
                allowed="finite numbers of at least 0",
                fix="Load the model as float32 or bfloat16 and check the calibration data.",
            )
        total += torch.bincount(buckets, minlength=INFINITY)
    found = total.nonzero().squeeze(1)
    return Scored(float(score), found.tolist(), total[found].tolist())
