"""The table of allocations: what each needs and how it shares the budget over the groups."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.allocation.filling import above_threshold, budgets, erdos_renyi
from ecoflap.allocation.histogram import COLUMNS, pooled
from ecoflap.allocation.integers import budget, floors
from ecoflap.allocation.tilting import (
    median_weighted,
    outlier_weighted,
    spectrum_weighted,
    uniform,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Groups:
    """Matrices that share a budget, and the groups that get a sparsity of their own.

    Attributes:
        table: One row per matrix.
        group: The group of each matrix [n_matrices].
        names: Names of the groups, for messages.
        sizes: Weights per group [n_groups].
        sparsity: Fraction of all these weights to remove.
        max_sparsity: Largest fraction that a group may lose.
        reduction: ``sum`` or ``mean`` per weight.
    """

    table: "pd.DataFrame"
    group: np.ndarray
    names: list[str]
    sizes: np.ndarray
    sparsity: str | float
    max_sparsity: str | float
    reduction: str

    def sums(self, column: str) -> np.ndarray:
        """Returns the sum of a column over the matrices of each group."""
        return np.bincount(self.group, weights=self.table[column])


@dataclass(frozen=True)
class Method:
    """An allocation.

    Attributes:
        keep: Returns the weights kept per group.
        columns: Columns that it reads beside tower, block, name and n_weights.
        estimators: Scores of `ecoflap.score` that it is defined on; any if empty.
        bounded: Whether it takes ``max_sparsity``.
        reduced: Whether it takes ``reduction``.
        grouped: Whether it takes ``granularity``.
    """

    keep: Callable[[Groups], list[int]]
    columns: tuple[str, ...] = ("score",)
    estimators: tuple[str, ...] = ()
    bounded: bool = False
    reduced: bool = False
    grouped: bool = True

    @property
    def scored(self) -> bool:
        """Whether it needs a score."""
        return "score" in self.columns


def _uniform(groups: Groups) -> list[int]:
    return uniform(groups.sizes, groups.sparsity)


def _er(groups: Groups) -> list[int]:
    fans = groups.sums("n_out") + groups.sums("n_in")
    return erdos_renyi(fans, groups.sizes, groups.sparsity, names=groups.names)


def _ecoflap(groups: Groups) -> list[int]:
    scores = groups.sums("score")
    if groups.reduction == "mean":
        scores = scores / groups.sizes
    bounds = groups.sparsity, groups.max_sparsity
    return budgets(scores, groups.sizes, *bounds, names=groups.names)


def _owl(groups: Groups) -> list[int]:
    ratios = groups.sums("score") / groups.sizes
    return outlier_weighted(ratios, groups.sizes, groups.sparsity, names=groups.names)


def _dlp(groups: Groups) -> list[int]:
    medians = pooled(groups.table, groups.group).medians()
    return median_weighted(medians, groups.sizes, groups.sparsity, names=groups.names)


def _alphapruning(groups: Groups) -> list[int]:
    alphas = groups.sums("score") / np.bincount(groups.group)
    return spectrum_weighted(alphas, groups.sizes, groups.sparsity, names=groups.names)


def _global(groups: Groups) -> list[int]:
    _, lower = floors(groups.sizes, groups.sparsity, groups.max_sparsity)
    counts = pooled(groups.table, groups.group).counts
    return above_threshold(counts, lower, budget(groups.sizes, groups.sparsity))


def _lamp(groups: Groups) -> list[int]:
    counts = pooled(groups.table, groups.group).counts
    return above_threshold(
        counts, np.zeros_like(groups.sizes), budget(groups.sizes, groups.sparsity)
    )


METHODS = {
    "uniform": Method(_uniform, columns=(), grouped=False),
    "er": Method(_er, columns=("n_out", "n_in")),
    "ecoflap": Method(_ecoflap, bounded=True, reduced=True),
    "owl": Method(_owl, estimators=("outliers",)),
    "dlp": Method(_dlp, columns=("score", *COLUMNS), estimators=("medians",)),
    "alphapruning": Method(_alphapruning, estimators=("spectrum",)),
    "global": Method(
        _global,
        columns=("score", *COLUMNS),
        estimators=("elements", "elements-magnitude"),
        bounded=True,
    ),
    "lamp": Method(_lamp, columns=("score", *COLUMNS), estimators=("lamp",)),
}
