"""From a table of scores to the plan that pruning follows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.allocation import histogram
from ecoflap.allocation.integers import Sparsity, exact, largest_sparsity, n_of_m, split
from ecoflap.allocation.integers import budget as kept_in_all
from ecoflap.allocation.methods import METHODS, Groups
from ecoflap.allocation.units import parts
from ecoflap.errors import AllocationError
from ecoflap.plugins import unknown

if TYPE_CHECKING:
    import pandas as pd

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
    max_sparsity: Sparsity | Mapping[str, Sparsity] = "+0.1",
    method: str = "ecoflap",
    budget: str = "model",
    granularity: str | None = None,
    reduction: str = "sum",
    strength: float | None = None,
    of: int | None = None,
) -> "pd.DataFrame":
    """Makes the plan that `ecoflap.prune` follows.

    Args:
        scores: One row per matrix: tower, block, name, n_weights, and the columns that
            ``METHODS[method]`` names, all of them in what `ecoflap.score` returns for the
            estimators that it names.
        sparsity: Fraction of all these weights to remove; or one for each tower or each stack
            (see `stack_of`), which then loses exactly that.
        max_sparsity: Largest sparsity of a group (``ecoflap`` and ``global`` only): ``"0.7"``, or
            ``"+0.1"`` for p + 0.1, as in the paper; or one for each tower or stack. With ``of`` it
            is kept to within 1 / M.
        method: ``uniform``; ``er`` (see `erdos_renyi`); ``ecoflap`` (Equation 3, see `budgets`);
            ``global`` and ``lamp`` (see `above_threshold`); ``owl``, ``dlp`` and
            ``alphapruning`` (see `outlier_weighted`, `median_weighted`, `spectrum_weighted`).
        budget: What loses exactly the one sparsity: the ``model``, each ``tower`` or each
            ``stack``. OWL, DLP and AlphaPruning are made for one stack.
        granularity: What gets a sparsity of its own: ``matrix``, ``block`` or ``tower``; by
            default that of the method's authors, ``matrix`` for ``er`` and ``lamp``, else
            ``block``.
        reduction: A group's score is the ``sum`` over its matrices or the ``mean`` per weight
            (``ecoflap`` only; published runs: sum, FlanT5 alone: mean).
        strength: How far sparsities differ: lambda of ``owl`` (0.08), alpha of ``dlp`` (0.15), tau
            of ``alphapruning`` (0.2).
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
        raise AllocationError(f"N:M with M = {of!r}", allowed=allowed, fix="Correct M.")
    for kind, name, known in (
        ("allocation", method, METHODS),
        ("granularity", granularity or "block", GRANULARITIES),
        ("reduction", reduction, REDUCTIONS),
    ):
        if str(name) not in known:
            raise AllocationError(unknown(kind, str(name), known))
    if not hasattr(scores, "reset_index"):
        raise AllocationError(
            f"scores of the type {type(scores).__name__}",
            allowed="the table that ecoflap.score returns",
            fix="Run ecoflap.score first.",
        )
    table = scores.reset_index(drop=True)
    _check(table, method)
    keys = GRANULARITIES[granularity or METHODS[method].granularity]
    strong = _strength(method, strength)
    keep, group_sparsity = np.zeros(len(table), dtype=np.int64), np.zeros(len(table))
    for label, rows, p, p_max in parts(table, budget, sparsity, max_sparsity):
        try:
            groups = _grouped(
                table.iloc[rows],
                keys,
                sparsity=p,
                max_sparsity=largest_sparsity(p, p_max),
                reduction=reduction,
                strength=strong,
            )
            kept = _kept(groups, method, of)
        except AllocationError as error:
            raise type(error)(f"{label}{error}") from error
        keep[rows] = split(groups.table["n_weights"].to_numpy(), groups.group, kept)
        group_sparsity[rows] = (1 - np.asarray(kept) / groups.sizes)[groups.group]
    plan = table.drop(columns=list(histogram.COLUMNS), errors="ignore")
    plan["keep"] = keep
    plan["sparsity"] = 1 - plan["keep"] / plan["n_weights"]
    plan["group_sparsity"] = group_sparsity
    return plan


def _odd(seen: str, allowed: str) -> AllocationError:
    return AllocationError(
        f"the scores: {seen}",
        allowed=allowed,
        fix="Pass what ecoflap.score returned.",
    )


def _check(table: "pd.DataFrame", method: str) -> None:
    """Refuses a table without the columns of a method, and scores without a meaning."""
    if not len(table):
        raise AllocationError(
            "no matrix in the scores",
            allowed="at least one",
            fix="Check the model.",
        )
    for column in (*GRANULARITIES["matrix"], "n_weights", *METHODS[method].columns):
        if column not in table:
            estimators = METHODS[method].estimators
            raise AllocationError(
                f"no column '{column}' in the scores, with the allocation {method}",
                allowed="the table that ecoflap.score returns",
                fix=f"Run ecoflap.score with the estimator {' or '.join(estimators)}."
                if estimators
                else "Run ecoflap.score first.",
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
            f"{twice.iloc[0]} stands twice in the scores ({len(twice)} rows too many)",
            allowed="one row for each matrix",
            fix="Pass the table of one run of ecoflap.score, or parts that share no block.",
        )
    if not METHODS[method].scored:
        return
    estimator, estimators = table.attrs.get("estimator"), METHODS[method].estimators
    if estimators and estimator not in (None, *estimators):
        raise AllocationError(
            f"allocation {method} with scores of the estimator {estimator}",
            allowed=" or ".join(estimators),
            fix="Score the model with that estimator, or choose another allocation.",
        )
    bad = table[~np.isfinite(table["score"]) | (table["score"] < 0)]
    if len(bad):
        row = bad.iloc[0]
        raise AllocationError(
            f"the score of {row['name']} is {row['score']}",
            allowed="finite numbers of at least 0",
            fix="Look at the calibration data and the model's dtype (overflow?).",
        )


def _strength(method: str, given: float | None) -> float:
    """Returns how strong a method is."""
    default = METHODS[method].strength
    if given is None:
        return default or 0.0
    if default is None or not isinstance(given, int | float) or not 0 < given < 1:
        strong = [name for name, other in METHODS.items() if other.strength is not None]
        raise AllocationError(
            f"allocation {method} with the strength {given!r}",
            allowed=f"a number between 0 and 1 with {', '.join(strong)}",
            fix="Correct or remove it.",
        )
    return float(given)


def _grouped(
    table: "pd.DataFrame",
    keys: list[str],
    *,
    sparsity: Sparsity,
    max_sparsity: Sparsity,
    reduction: str,
    strength: float,
) -> Groups:
    """Groups the rows of a table by columns; the settings are fields of `Groups`."""
    group = table.groupby(keys, sort=False).ngroup().to_numpy()
    first = table[keys].iloc[np.unique(group, return_index=True)[1]]
    names = ["/".join(str(part) for part in key) for key in first.itertuples(index=False)]
    sizes = np.bincount(group, weights=table["n_weights"]).astype(np.int64)
    return Groups(table, group, names, sizes, sparsity, max_sparsity, reduction, strength)


def _kept(groups: Groups, method: str, of: int | None) -> list[int]:
    """Returns the weights kept per group, N of each M if asked for."""
    kept = METHODS[method].keep(groups)
    total = kept_in_all(groups.sizes, groups.sparsity)
    fits = len(kept) == len(groups.sizes) and all(
        0 <= n <= size for n, size in zip(kept, groups.sizes, strict=True)
    )
    if not fits or sum(kept) != total:
        raise AllocationError(
            f"allocation {method} keeps {sum(kept)} weights in {len(kept)} groups",
            allowed=f"{total} in {len(groups.sizes)} groups, none more than it has",
            fix="Correct the method; allocation.integers.rounded makes a share exact.",
        )
    if of is None:
        return kept
    if method == "uniform" and ((1 - exact(groups.sparsity)) * of).denominator > 1:
        raise AllocationError(
            f"sparsity {float(exact(groups.sparsity)):.6g} with the same N:{of} everywhere",
            allowed=f"a sparsity of 1 - N/{of}",
            fix="Correct the sparsity, or use an allocation with an N for each group.",
        )
    return n_of_m(kept, groups.table["n_weights"], groups.group, total, of)
