"""From a table of scores to the plan that pruning follows."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.allocation import histogram
from ecoflap.allocation.integers import budget, default_max_sparsity, exact, n_of_m, split
from ecoflap.allocation.methods import METHODS, Groups
from ecoflap.errors import AllocationError, message
from ecoflap.registry import unknown

if TYPE_CHECKING:
    import pandas as pd

Sparsity = str | float
GRANULARITIES = {
    "matrix": ["tower", "block", "name"],
    "block": ["tower", "block"],
    "tower": ["tower"],
}
REDUCTIONS = ("sum", "mean")


def allocate(
    scores: "pd.DataFrame",
    *,
    sparsity: Sparsity | Mapping[str, Sparsity],
    max_sparsity: Sparsity | Mapping[str, Sparsity] | None = None,
    method: str = "ecoflap",
    granularity: str = "block",
    reduction: str = "sum",
    of: int | None = None,
) -> "pd.DataFrame":
    """Makes the plan that `ecoflap.prune` follows.

    Args:
        scores: One row per matrix: tower, block, name, n_weights, and the columns that
            ``METHODS[method]`` names, all of them in what `ecoflap.score` returns for the
            estimators that it names.
        sparsity: Fraction of all these weights to remove; or one for each tower, which then
            loses exactly that.
        max_sparsity: Largest sparsity of a group (``ecoflap`` and ``global`` only), or one for
            each tower; p + 0.1 by default, as in the paper. With ``of`` it is kept to within
            1 / M.
        method: ``uniform``; ``er`` (see `erdos_renyi`); ``ecoflap`` (Equation 3, see `budgets`);
            ``global`` and ``lamp`` (see `above_threshold`); ``owl``, ``dlp`` and
            ``alphapruning`` (see `outlier_weighted`, `median_weighted`, `spectrum_weighted`).
        granularity: What gets a sparsity of its own: ``matrix``, ``block`` or ``tower``.
        reduction: A group's score is the ``sum`` over its matrices or the ``mean`` per weight
            (``ecoflap`` only; published runs: sum, FlanT5 alone: mean).
        of: M of an N:M pattern; every group then keeps N of each M weights, with the N that
            comes nearest and a total of at most the budget.

    Returns:
        The rows of ``scores``, without histograms, with ``keep`` (weights that stay: in all the
        exact budget, with ``of`` at most that) and ``sparsity`` per matrix, and
        ``group_sparsity``.

    Raises:
        AllocationError: for unknown names, missing columns, scores without a meaning and budgets
            without a solution, naming the matrix or group.
    """
    if of is not None and (type(of) is not int or of < 1):
        allowed = "a whole number, at least 1"
        raise AllocationError(message(f"N:M with M = {of!r}", allowed, "Correct M."))
    for kind, name, known in (
        ("allocation", method, METHODS),
        ("granularity", granularity, GRANULARITIES),
        ("reduction", reduction, REDUCTIONS),
    ):
        if str(name) not in known:
            raise AllocationError(unknown(kind, str(name), known))
    if not hasattr(scores, "reset_index"):
        raise AllocationError(
            message(
                f"scores of the type {type(scores).__name__}",
                "the table that ecoflap.score returns",
                "Run ecoflap.score first.",
            )
        )
    table = scores.reset_index(drop=True)
    _check(table, method)
    keep, group_sparsity = np.zeros(len(table), dtype=np.int64), np.zeros(len(table))
    for rows, p, p_max in _budgets(table["tower"].to_numpy(), sparsity, max_sparsity):
        try:
            bound = default_max_sparsity(p) if p_max is None else p_max
            groups = _grouped(table.iloc[rows], granularity, p, bound, reduction)
            kept = _kept(groups, method, of)
        except AllocationError as error:
            if not isinstance(sparsity, Mapping):
                raise
            tower = table["tower"].iloc[rows[0]]
            raise AllocationError(f"tower {tower}: {error}") from error
        keep[rows] = split(groups.table["n_weights"].to_numpy(), groups.group, kept)
        group_sparsity[rows] = (1 - np.asarray(kept) / groups.sizes)[groups.group]
    plan = table.drop(columns=list(histogram.COLUMNS), errors="ignore")
    plan["keep"] = keep
    plan["sparsity"] = 1 - plan["keep"] / plan["n_weights"]
    plan["group_sparsity"] = group_sparsity
    return plan


def _odd(seen: str, allowed: str) -> AllocationError:
    return AllocationError(
        message(f"the scores: {seen}", allowed, "Pass what ecoflap.score returned.")
    )


def _check(table: "pd.DataFrame", method: str) -> None:
    """Refuses a table without the columns of a method, and scores without a meaning."""
    if not len(table):
        raise AllocationError(
            message("no matrix in the scores", "at least one", "Check the model.")
        )
    for column in (*GRANULARITIES["matrix"], "n_weights", *METHODS[method].columns):
        if column not in table:
            estimators = METHODS[method].estimators
            raise AllocationError(
                message(
                    f"no column '{column}' in the scores, with the allocation {method}",
                    "the table that ecoflap.score returns",
                    f"Run ecoflap.score with the estimator {' or '.join(estimators)}."
                    if estimators
                    else "Run ecoflap.score first.",
                )
            )
    for column in GRANULARITIES["matrix"]:
        if table[column].isna().any():
            raise _odd(f"{column} is empty in a row", "a value in each row")
    for column in ("n_weights", "score"):
        if column in table and table[column].dtype.kind not in "biuf":
            raise _odd(f"{column} holds {table[column].dtype}", "numbers")
    twice = table["name"][table["name"].duplicated()]
    if len(twice):
        raise AllocationError(
            message(
                f"{twice.iloc[0]} stands twice in the scores ({len(twice)} rows too many)",
                "one row for each matrix",
                "Pass the table of one run of ecoflap.score, or parts that share no block.",
            )
        )
    if not METHODS[method].scored:
        return
    estimator, estimators = table.attrs.get("estimator"), METHODS[method].estimators
    if estimators and estimator not in (None, *estimators):
        raise AllocationError(
            message(
                f"allocation {method} with scores of the estimator {estimator}",
                " or ".join(estimators),
                "Score the model with that estimator, or choose another allocation.",
            )
        )
    bad = table[~np.isfinite(table["score"]) | (table["score"] < 0)]
    if len(bad):
        row = bad.iloc[0]
        raise AllocationError(
            message(
                f"the score of {row['name']} is {row['score']}",
                "finite numbers of at least 0",
                "Look at the calibration data and the model's dtype (overflow?).",
            )
        )


def _budgets(
    towers: np.ndarray,
    sparsity: Sparsity | Mapping[str, Sparsity],
    max_sparsity: Sparsity | Mapping[str, Sparsity] | None,
) -> Iterator[tuple[np.ndarray, Sparsity, Sparsity | None]]:
    """Yields the rows that share a budget, their sparsity and its p_max."""
    for name, given in (("sparsity", sparsity), ("max_sparsity", max_sparsity)):
        if isinstance(given, Mapping) and set(given) != set(towers):
            raise AllocationError(
                message(
                    f"{name} for the towers {', '.join(given) or '(none)'}",
                    ", ".join(dict.fromkeys(towers)),
                    "Name every tower, or give one number for the whole model.",
                )
            )
    if not isinstance(sparsity, Mapping):
        if isinstance(max_sparsity, Mapping):
            raise AllocationError(
                message(
                    f"max_sparsity for each tower with sparsity {sparsity} for the whole model",
                    "a sparsity for each tower, or one max_sparsity",
                    "Give both for each tower.",
                )
            )
        yield np.arange(len(towers)), sparsity, max_sparsity
        return
    for tower, p in sparsity.items():
        p_max = max_sparsity[tower] if isinstance(max_sparsity, Mapping) else max_sparsity
        yield np.flatnonzero(towers == tower), p, p_max


def _grouped(
    table: "pd.DataFrame", granularity: str, sparsity: Sparsity, p_max: Sparsity, reduction: str
) -> Groups:
    keys = GRANULARITIES[granularity]
    group = table.groupby(keys, sort=False).ngroup().to_numpy()
    first = table[keys].iloc[np.unique(group, return_index=True)[1]]
    names = ["/".join(str(part) for part in key) for key in first.itertuples(index=False)]
    sizes = np.bincount(group, weights=table["n_weights"]).astype(np.int64)
    return Groups(table, group, names, sizes, sparsity, p_max, reduction)


def _kept(groups: Groups, method: str, of: int | None) -> list[int]:
    """Returns the weights kept per group, N of each M if asked for."""
    kept = METHODS[method].keep(groups)
    total = budget(groups.sizes, groups.sparsity)
    fits = len(kept) == len(groups.sizes) and all(
        0 <= n <= size for n, size in zip(kept, groups.sizes, strict=True)
    )
    if not fits or sum(kept) != total:
        raise AllocationError(
            message(
                f"allocation {method} keeps {sum(kept)} weights in {len(kept)} groups",
                f"{total} in {len(groups.sizes)} groups, none more than it has",
                "Correct the method; allocation.integers.rounded makes a share exact.",
            )
        )
    if of is None:
        return kept
    if method == "uniform" and ((1 - exact(groups.sparsity)) * of).denominator > 1:
        raise AllocationError(
            message(
                f"sparsity {groups.sparsity} with the same N:{of} everywhere",
                f"a sparsity of 1 - N/{of}",
                "Correct the sparsity, or use an allocation with an N for each group.",
            )
        )
    return n_of_m(kept, groups.table["n_weights"], groups.group, total, of)
