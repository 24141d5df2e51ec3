"""The table of allocations: what each needs and how it shares the budget over the groups."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.allocation.histogram import COLUMNS, pooled
from ecoflap.allocation.integers import budget, floors
from ecoflap.allocation.water_filling import above_threshold, budgets, erdos_renyi
from ecoflap.allocation.weighted_shares import (
    ALPHA_TAU,
    DLP_ALPHA,
    OWL_LAMBDA,
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
        strength: Lambda of ``owl``, alpha of ``dlp``, tau of ``alphapruning``; 0 for the others.
    """

    table: "pd.DataFrame"
    group: np.ndarray
    names: list[str]
    sizes: np.ndarray
    sparsity: str | float
    max_sparsity: str | float
    reduction: str
    strength: float

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
        granularity: Its authors' choice of what gets a sparsity of its own.
        strength: Its authors' value of the one number that says how far sparsities differ; None
            if there is none, or if that is what ``max_sparsity`` says.
        tried: Values of its `dial` among which `ecoflap.pruning.choosing` chooses.
    """

    keep: Callable[[Groups], list[int]]
    columns: tuple[str, ...] = ("score",)
    estimators: tuple[str, ...] = ()
    bounded: bool = False
    reduced: bool = False
    grouped: bool = True
    granularity: str = "block"
    strength: float | None = None
    tried: tuple[str, ...] | tuple[float, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether it needs a score."""
        return "score" in self.columns

    @property
    def dial(self) -> str:
        """The argument of `allocate` that says how far sparsities may differ."""
        return "max_sparsity" if self.bounded else "strength"


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
    settings = {"strength": groups.strength, "names": groups.names}
    return outlier_weighted(ratios, groups.sizes, groups.sparsity, **settings)


def _dlp(groups: Groups) -> list[int]:
    medians = pooled(groups.table, groups.group).medians()
    settings = {"strength": groups.strength, "names": groups.names}
    return median_weighted(medians, groups.sizes, groups.sparsity, **settings)


def _alphapruning(groups: Groups) -> list[int]:
    alphas = groups.sums("score") / np.bincount(groups.group)
    settings = {"strength": groups.strength, "names": groups.names}
    return spectrum_weighted(alphas, groups.sizes, groups.sparsity, **settings)


def _global(groups: Groups) -> list[int]:
    _, lower = floors(groups.sizes, groups.sparsity, groups.max_sparsity)
    counts = pooled(groups.table, groups.group).counts
    return above_threshold(counts, lower, budget(groups.sizes, groups.sparsity))


def _lamp(groups: Groups) -> list[int]:
    counts = pooled(groups.table, groups.group).counts
    return above_threshold(
        counts, np.zeros_like(groups.sizes), budget(groups.sizes, groups.sparsity)
    )


MARGINS = ("+0.05", "+0.1", "+0.2", "+0.3")
METHODS = {
    "uniform": Method(_uniform, columns=(), grouped=False),
    "er": Method(_er, columns=("n_out", "n_in"), granularity="matrix"),
    "ecoflap": Method(_ecoflap, bounded=True, reduced=True, tried=MARGINS),
    "owl": Method(
        _owl, estimators=("outliers",), strength=OWL_LAMBDA, tried=(0.04, OWL_LAMBDA, 0.12, 0.2)
    ),
    "dlp": Method(
        _dlp,
        columns=("score", *COLUMNS),
        estimators=("medians",),
        strength=DLP_ALPHA,
        tried=(0.05, 0.1, DLP_ALPHA, 0.2),
    ),
    "alphapruning": Method(
        _alphapruning,
        estimators=("spectrum", "spectrum-middle"),
        strength=ALPHA_TAU,
        tried=(0.1, ALPHA_TAU, 0.3),
    ),
    "global": Method(
        _global,
        columns=("score", *COLUMNS),
        estimators=("elements", "elements-magnitude"),
        bounded=True,
        tried=MARGINS,
    ),
    "lamp": Method(_lamp, columns=("score", *COLUMNS), estimators=("lamp",), granularity="matrix"),
}
