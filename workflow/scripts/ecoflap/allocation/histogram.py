"""Histograms of elementwise importances, pooled over the matrices of a group.

A bucket is the top 16 bits of the float32 pattern of a number that is not negative: buckets are
ordered like the numbers and resolve them to 1/128. `ecoflap.scores._histogram` makes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.errors import AllocationError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("buckets", "counts")  # of a table of scores, a list of int in each cell
INFINITY = 0x7F80  # the first bucket that holds no finite number


@dataclass(frozen=True)
class Histograms:
    """One histogram per group.

    Attributes:
        buckets: Every bucket in which a group has an element, ascending [n_buckets].
        counts: Elements per group and bucket [n_groups, n_buckets].
    """

    buckets: np.ndarray
    counts: np.ndarray

    def medians(self) -> np.ndarray:
        """Returns the median of each group; elements spread evenly over their bucket."""
        low = _smallest(self.buckets)
        width = np.where(self.buckets > 0, _smallest(self.buckets + 1) - low, 0)  # bucket 0: zeros
        return np.array([_median(low, width, counts) for counts in self.counts])


def pooled(table: "pd.DataFrame", group: np.ndarray) -> Histograms:
    """Adds up the histograms of the matrices of each group.

    Args:
        table: One row per matrix: name, n_weights, buckets and counts (a list of int each).
        group: The group of each matrix.

    Returns:
        The histograms of the groups.

    Raises:
        AllocationError: for a histogram that is not one of all weights of its matrix, naming it,
            and where every element of every matrix is zero.
    """
    parts = [
        _checked(*row) for row in table[["name", "n_weights", *COLUMNS]].itertuples(index=False)
    ]
    buckets = np.unique(np.concatenate([part[0] for part in parts]))
    if buckets[-1] == 0:
        names = table["name"]
        raise AllocationError(
            f"all importances are zero, from {names.iloc[0]} to {names.iloc[-1]}",
            allowed="at least one positive importance",
            fix="Check model and calibration data, or use the allocation uniform.",
        )
    counts = np.zeros((int(group.max()) + 1, len(buckets)), dtype=np.int64)
    for index, (own, number) in zip(group, parts, strict=True):
        counts[index, np.searchsorted(buckets, own)] += number
    return Histograms(buckets, counts)


def _checked(
    name: str, n_weights: int, buckets: Sequence[int], counts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    own, number = (np.asarray(column, dtype=np.float64) for column in (buckets, counts))
    right = (
        own.ndim == 1
        and own.shape == number.shape
        and ((own >= 0) & (own < INFINITY) & (own % 1 == 0)).all()
        and (np.diff(own) > 0).all()
        and ((number > 0) & (number % 1 == 0)).all()
        and number.sum() == n_weights
    )
    if not right:
        raise AllocationError(
            f"the histogram of {name} is not one of its {n_weights} weights",
            allowed=f"ascending buckets below {INFINITY} whose counts add up to the weights",
            fix="Run ecoflap.score again with this version.",
        )
    return own.astype(np.int64), number.astype(np.int64)


def _smallest(buckets: np.ndarray) -> np.ndarray:
    """Returns the smallest number of each bucket; infinity after the last one."""
    return (buckets.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _median(low: np.ndarray, width: np.ndarray, counts: np.ndarray) -> float:
    until, n = counts.cumsum(), int(counts.sum())

    def at(rank: int) -> float:
        index = int(np.searchsorted(until, rank, side="right"))
        before = until[index] - counts[index]
        return low[index] + width[index] * (rank - before + 0.5) / counts[index]

    return (at((n - 1) // 2) + at(n // 2)) / 2
