"""Turns one score per matrix into one sparsity per group under an exact integer budget.

Groups are blocks unless asked otherwise. Needs numpy and pandas, never torch.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.errors import AllocationError, message
from ecoflap.registry import unknown

if TYPE_CHECKING:
    import pandas as pd

GRANULARITIES = {
    "matrix": ["tower", "block", "name"],
    "block": ["tower", "block"],
    "tower": ["tower"],
}
REDUCTIONS = ("sum", "mean")
OWL_LAMBDA = 0.08  # as published: sparsities differ by at most twice this
NEGLIGIBLE = 1e-250  # of the largest score; less would overflow when divided by


def exact(sparsity: str | float) -> Fraction:
    """Returns a sparsity as the fraction that its decimal form says.

    Raises:
        AllocationError: if it is not a number in [0, 1).
    """
    try:
        value = Fraction(str(sparsity).strip())
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or not 0 <= value < 1:
        raise AllocationError(
            message(
                f"sparsity {sparsity!r}",
                "a decimal number from 0 up to but not including 1, the fraction removed",
                'Write it like "0.5".',
            )
        )
    return value


def budget(sizes: Sequence[int], sparsity: str | float) -> int:
    """Returns the number of weights that stay: round((1 - p) N), half to even."""
    return round((1 - exact(sparsity)) * sum(int(size) for size in sizes))


def budgets(
    scores: Sequence[float],
    sizes: Sequence[int],
    sparsity: str | float,
    max_sparsity: str | float,
    *,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Solves the paper's Equation 3 exactly: the weights kept in each group.

    ``keep_g = min(n_g, n_g (1 - p_max) + lambda s_g)`` with ``sum keep_g = round((1 - p) N)``.
    The published loop converges to this; here the breakpoints are sorted, the solution is read
    off, and rounded to integers of the same sum by largest remainder. What groups with a positive
    score cannot take (all full) goes to the others in proportion to their size.

    Args:
        scores: One score per group, finite, not negative, not all zero.
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        max_sparsity: Largest fraction p_max that a group may lose.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group: their sum is exact, none is above the group's size, and none
        below ``ceil(n_g (1 - p_max))`` (the floor is rounded down only where the budget is too
        tight for that, within one weight per group). For groups of one size, a larger score
        never keeps less.

    Raises:
        AllocationError: for scores or budgets without a solution, naming the group.
    """
    score, size, names = _checked(scores, sizes, names)
    p, p_max = exact(sparsity), exact(max_sparsity)
    if p > p_max:
        raise AllocationError(
            message(
                f"sparsity {sparsity} is above max_sparsity (p_max) {max_sparsity}",
                "max_sparsity of at least the sparsity",
                "Raise max_sparsity or lower the sparsity.",
            )
        )
    total = budget(sizes, sparsity)
    floors = [(1 - p_max) * int(n) for n in size]
    lower = np.array([-(-f.numerator // f.denominator) for f in floors], dtype=np.int64)
    if lower.sum() > total:
        lower = np.array([f.numerator // f.denominator for f in floors], dtype=np.int64)
    floor = np.array([float(f) for f in floors])
    kept = _fill(score, size, floor, lower, total)
    return _round(kept, score, lower, size, total)


def _checked(
    scores: Sequence[float], sizes: Sequence[int], names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    score = np.asarray(list(scores), dtype=np.float64)
    size = np.asarray(list(sizes), dtype=np.int64)
    names = list(names) if names is not None else [f"group {i}" for i in range(len(size))]
    if len(score) == 0 or not len(score) == len(size) == len(names):
        raise AllocationError(
            message(
                f"{len(score)} scores, {len(size)} sizes, {len(names)} names",
                "one of each per group, at least one group",
                "Check that the scores belong to this model.",
            )
        )
    for kind, wrong in (
        ("not finite", ~np.isfinite(score)),
        ("negative", score < 0),
        ("of an empty group", size <= 0),
    ):
        if wrong.any():
            index = int(np.argmax(wrong))
            raise AllocationError(
                message(
                    f"the score of {names[index]} is {kind} ({score[index]}, n = {size[index]})",
                    "finite numbers of at least 0, for groups with weights",
                    "Look at the calibration data and the model's dtype (overflow?).",
                )
            )
    if not (score > 0).any():
        raise AllocationError(
            message(
                f"all scores are zero, from {names[0]} to {names[-1]}",
                "at least one positive score",
                "Check model and calibration data, or use the allocation uniform.",
            )
        )
    return score / score.max(), size, names


def _fill(
    score: np.ndarray, size: np.ndarray, floor: np.ndarray, lower: np.ndarray, total: int
) -> np.ndarray:
    """Finds lambda by walking the breakpoints of the piecewise linear sum of what is kept."""
    score = np.where(score < NEGLIGIBLE, 0, score)
    positive = score > 0
    base = np.maximum(lower, floor)  # kept while lambda is 0
    s = score[positive]
    starts = (base[positive] - floor[positive]) / s  # where a group leaves its floor
    ends = (size[positive] - floor[positive]) / s  # where a group is full
    points = np.unique(np.concatenate([[0.0], starts, ends]))

    def kept_at(rate: float) -> np.ndarray:
        return np.where(positive, np.clip(floor + rate * score, base, size), base)

    # Each sum is formed anew: running sums lose the groups whose scores are tiny.
    low, high = 0, len(points)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if kept_at(points[middle]).sum() <= total else (low, middle)
    rate = points[low]
    rising = s[(starts <= rate) & (rate < ends)].sum()
    if rising > 0:
        rate += (total - kept_at(rate).sum()) / rising
    kept = kept_at(rate)
    left = total - kept.sum()
    room = np.where(positive, 0, size - base)
    if left > 0.5 and room.sum() > 0:
        kept = kept + room * min(1.0, left / room.sum())
    return kept


def _round(
    kept: np.ndarray, score: np.ndarray, lower: np.ndarray, size: np.ndarray, total: int
) -> list[int]:
    """Rounds to integers of the exact sum by largest remainder, larger scores first on ties."""
    whole = np.clip(np.floor(kept).astype(np.int64), lower, size)
    order = np.lexsort((np.arange(len(kept)), -score, -(kept - whole)))
    missing = int(total - whole.sum())
    step = 1 if missing > 0 else -1
    if step < 0:
        order = order[::-1]
    while missing:
        for index in order:
            if lower[index] <= whole[index] + step <= size[index]:
                whole[index] += step
                missing -= step
                if not missing:
                    break
    return [int(n) for n in whole]


def uniform(sizes: Sequence[int], sparsity: str | float) -> list[int]:
    """Keeps the same fraction of every group, rounded to the exact budget.

    Args:
        sizes: Weights per group.
        sparsity: Fraction of all weights to remove.
    """
    share = 1 - exact(sparsity)
    size = np.asarray(list(sizes), dtype=np.int64)
    kept = np.array([float(share * int(n)) for n in size])
    return _round(kept, np.zeros(len(size)), np.zeros_like(size), size, budget(sizes, sparsity))


def n_of_m(
    kept: Sequence[int], n_weights: Sequence[int], group: np.ndarray, total: int, of: int
) -> list[int]:
    """Rounds what groups keep to N of each M weights, with one N for each group.

    Args:
        kept: The weights kept per group by an unstructured allocation.
        n_weights: Weights per matrix.
        group: The group of each matrix.
        total: The weights that may stay in all.
        of: M.

    Returns:
        The weights kept per group, at most ``total`` in all: the N below each group's share,
        then the N above it by largest remainder while the total allows it.

    Raises:
        AllocationError: if M does not divide a matrix.
    """
    odd = [int(n) for n in n_weights if int(n) % of]
    if odd:
        raise AllocationError(
            message(f"a matrix of {odd[0]} weights with N:{of}", f"multiples of {of}", "Change M.")
        )
    sizes = np.bincount(group, weights=n_weights).astype(np.int64)
    share = of * np.asarray(kept) / sizes
    n = np.floor(share + 1e-9).astype(np.int64)
    unit = sizes // of
    left = total - int((n * unit).sum())
    for index in np.lexsort((np.arange(len(n)), n - share)):
        if n[index] + 1e-9 < share[index] and unit[index] <= left:
            n[index] += 1
            left -= int(unit[index])
    return [int(value) for value in n * unit]


def allocate(
    scores: "pd.DataFrame",
    *,
    sparsity: str | float,
    max_sparsity: str | float | None = None,
    method: str = "ecoflap",
    granularity: str = "block",
    reduction: str = "sum",
    of: int | None = None,
) -> "pd.DataFrame":
    """Makes the plan that `ecoflap.prune` follows.

    Args:
        scores: One row per matrix with the columns tower, block, name, n_weights and (unless the
            method is ``uniform``) score.
        sparsity: Fraction of all these weights to remove.
        max_sparsity: Largest sparsity of a group (``ecoflap`` only); p + 0.1 by default, as in
            the paper. With ``of`` it is kept to within 1 / M.
        method: ``ecoflap`` (Equation 3), ``owl`` (see `outlier_weighted`) or ``uniform``.
        granularity: What gets a sparsity of its own: ``matrix``, ``block`` or ``tower``.
        reduction: A group's score is the ``sum`` over its matrices or the ``mean`` per weight
            (``ecoflap`` only; published runs: sum, FlanT5 alone: mean).
        of: M of an N:M pattern; every group then keeps N of each M weights, with the N that
            comes nearest and a total of at most the budget.

    Returns:
        The rows of ``scores`` with ``keep`` (weights that stay: in all the exact budget, with
        ``of`` at most that) and ``sparsity`` per matrix, and ``group_sparsity``.

    Raises:
        AllocationError: for unknown names and for what `budgets` refuses.
    """
    if method not in METHODS:
        raise AllocationError(unknown("allocation", method, METHODS))
    if granularity not in GRANULARITIES:
        raise AllocationError(unknown("granularity", granularity, GRANULARITIES))
    if reduction not in REDUCTIONS:
        raise AllocationError(unknown("reduction", reduction, REDUCTIONS))
    if max_sparsity is None:
        max_sparsity = default_max_sparsity(sparsity)
    plan = scores.reset_index(drop=True).copy()
    group = plan.groupby(GRANULARITIES[granularity], sort=False).ngroup().to_numpy()
    sizes = np.bincount(group, weights=plan["n_weights"]).astype(np.int64)
    kept = METHODS[method](plan, group, sizes, sparsity, max_sparsity, granularity, reduction)
    if of is not None:
        if method == "uniform" and ((1 - exact(sparsity)) * of).denominator > 1:
            raise AllocationError(
                message(
                    f"sparsity {sparsity} with the same N:{of} everywhere",
                    f"a sparsity of 1 - N/{of}",
                    "Correct the sparsity, or use an allocation with an N for each group.",
                )
            )
        kept = n_of_m(kept, plan["n_weights"], group, budget(sizes, sparsity), of)
    plan["keep"] = _split(plan["n_weights"].to_numpy(), group, kept)
    plan["sparsity"] = 1 - plan["keep"] / plan["n_weights"]
    plan["group_sparsity"] = (1 - np.asarray(kept) / sizes)[group]
    return plan


def default_max_sparsity(sparsity: str | float, margin: str | float = "0.1") -> str:
    """Returns p + margin as decimal text, at most 0.9999."""
    value = min(exact(sparsity) + Fraction(str(margin)), Fraction(9999, 10000))
    return f"{float(value):.6g}"


def outlier_weighted(
    ratios: Sequence[float],
    sizes: Sequence[int],
    sparsity: str | float,
    *,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Keeps more where there are more outliers (OWL, Yin et al. 2023).

    ``keep_g = n_g (1 - p + d_g - mean(d))`` with d the ratios scaled to [0, 2 lambda] and lambda
    0.08. The mean is weighted by size, so that the budget is exact for groups of any size.

    Args:
        ratios: Share of outliers per group, finite, not negative, not all zero.
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group.

    Raises:
        AllocationError: for ratios without a meaning, and where a group would keep less than
            nothing or more than it has.
    """
    ratio, size, _ = _checked(ratios, sizes, names)
    spread = ratio.max() - ratio.min()
    d = 2 * OWL_LAMBDA * (ratio - ratio.min()) / (spread if spread > 0 else 1)
    share = float(1 - exact(sparsity)) + d - np.average(d, weights=size)
    if share.min() < 0 or share.max() > 1:
        raise AllocationError(
            message(
                f"sparsity {sparsity} with OWL would keep {share.min():.3f} to {share.max():.3f}",
                f"sparsities about {2 * OWL_LAMBDA} away from 0 and 1",
                "Choose another sparsity or allocation.",
            )
        )
    return _round(share * size, ratio, np.zeros_like(size), size, budget(sizes, sparsity))


def _ecoflap(plan, group, sizes, sparsity, max_sparsity, granularity, reduction) -> list[int]:
    scores, names = _group_scores(plan, group, sizes, granularity, reduction)
    return budgets(scores, sizes, sparsity, max_sparsity, names=names)


def _owl(plan, group, sizes, sparsity, max_sparsity, granularity, reduction) -> list[int]:
    ratios, names = _group_scores(plan, group, sizes, granularity, "mean")
    return outlier_weighted(ratios, sizes, sparsity, names=names)


def _group_scores(plan, group, sizes, granularity, reduction) -> tuple[np.ndarray, list[str]]:
    """Returns the score of each group and its name."""
    for column in ("score", "name"):
        if column not in plan:
            raise AllocationError(
                message(
                    f"no column '{column}' in the scores",
                    "the table that ecoflap.score returns",
                    "Run ecoflap.score first.",
                )
            )
    bad = plan[~np.isfinite(plan["score"]) | (plan["score"] < 0)]
    if len(bad):
        row = bad.iloc[0]
        raise AllocationError(
            message(
                f"the score of {row['name']} is {row['score']}",
                "finite numbers of at least 0",
                "Look at the calibration data and the model's dtype (overflow?).",
            )
        )
    scores = np.bincount(group, weights=plan["score"])
    if reduction == "mean":
        scores = scores / sizes
    keys = plan[GRANULARITIES[granularity]].iloc[np.unique(group, return_index=True)[1]]
    names = ["/".join(str(part) for part in key) for key in keys.itertuples(index=False)]
    return scores, names


def _uniform(plan, group, sizes, sparsity, max_sparsity, granularity, reduction) -> list[int]:
    return uniform(sizes, sparsity)


METHODS: dict[str, Callable[..., list[int]]] = {
    "ecoflap": _ecoflap,
    "owl": _owl,
    "uniform": _uniform,
}


def _split(n_weights: np.ndarray, group: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Shares each group's integer over its matrices, in proportion to their size."""
    result = np.zeros(len(n_weights), dtype=np.int64)
    for index, total in enumerate(kept):
        rows = np.flatnonzero(group == index)
        size = n_weights[rows].astype(np.int64)
        share = size * (total / size.sum())
        result[rows] = _round(share, np.zeros(len(rows)), np.zeros_like(size), size, int(total))
    return result
