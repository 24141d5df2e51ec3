"""Allocations in which one rate rises until the budget is met: Equation 3, thresholds, ER."""

from collections.abc import Collection, Sequence

import numpy as np

from ecoflap.allocation.integers import budget, floors, rounded
from ecoflap.errors import AllocationError

NEGLIGIBLE = 1e-250  # of the largest score; less would overflow when divided by


def budgets(
    scores: Collection[float],
    sizes: Collection[int],
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
        never keeps less, but for scores below `NEGLIGIBLE` of the largest, which count as 0.

    Raises:
        AllocationError: for scores or budgets without a solution, naming the group.
    """
    score, size, _ = checked(scores, sizes, names)
    floor, lower = floors(sizes, sparsity, max_sparsity)
    total = budget(sizes, sparsity)
    return rounded(_fill(score, size, floor, lower, total), score, lower, size, total)


def erdos_renyi(
    fans: Collection[float],
    sizes: Collection[int],
    sparsity: str | float,
    *,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Keeps in proportion to ``n_out + n_in`` (Mocanu et al. 2018; ER of Evci et al. 2020).

    Args:
        fans: The sum of n_out + n_in over the matrices of each group.
        sizes: Weights per group, which cap what it keeps.
        sparsity: Fraction of all weights to remove.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group.

    Raises:
        AllocationError: for numbers without a meaning, naming the group.
    """
    fan, size, _ = checked(fans, sizes, names)
    nothing, total = np.zeros_like(size), budget(sizes, sparsity)
    return rounded(_fill(fan, size, nothing, nothing, total), fan, nothing, size, total)


def above_threshold(counts: np.ndarray, lower: np.ndarray, total: int) -> list[int]:
    """Keeps what lies above one threshold for all groups, and at least a floor in each.

    ``keep_g = max(lower_g, number of elements of g at or above t)`` with t such that the sum is
    the budget. Within the bucket of t, groups share in proportion to their elements there.

    Args:
        counts: Elements per group and bucket [n_groups, n_buckets], values ascending.
        lower: Smallest number that each group keeps, at most ``total`` in all.
        total: The weights that stay.

    Returns:
        The weights kept per group.
    """
    reached = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # elements in a bucket or above it
    kept = np.maximum(reached, lower[:, None]).sum(axis=0)
    bucket = np.flatnonzero(kept >= total)[-1]
    inside = counts[:, bucket]
    above = reached[:, bucket] - inside
    base, top = np.maximum(lower, above), np.maximum(lower, reached[:, bucket])
    shares = _fill(inside, top, above, lower, total)
    return rounded(shares, reached[:, bucket] / reached[:, 0], base, top, total)


def checked(
    scores: Collection[float], sizes: Collection[int], names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Returns scores scaled to a largest of 1, sizes, and names, as arrays of one length.

    Raises:
        AllocationError: for scores that are not finite, negative or all zero, and empty groups.
    """
    score = np.asarray(list(scores), dtype=np.float64)
    size = np.asarray(list(sizes), dtype=np.int64)
    names = list(names) if names is not None else [f"group {i}" for i in range(len(size))]
    if len(score) == 0 or not len(score) == len(size) == len(names):
        raise AllocationError(
            f"{len(score)} scores, {len(size)} sizes, {len(names)} names",
            allowed="one of each per group, at least one group",
            fix="Check that the scores belong to this model.",
        )
    for kind, wrong in (
        ("not finite", ~np.isfinite(score)),
        ("negative", score < 0),
        ("of an empty group", size <= 0),
    ):
        if wrong.any():
            index = int(np.argmax(wrong))
            raise AllocationError(
                f"the score of {names[index]} is {kind} ({score[index]}, n = {size[index]})",
                allowed="finite numbers of at least 0, for groups with weights",
                fix="Look at the calibration data and the model's dtype (overflow?).",
            )
    if not (score > 0).any():
        raise AllocationError(
            f"all scores are zero, from {names[0]} to {names[-1]}",
            allowed="at least one positive score",
            fix="Check model and calibration data, or use the allocation uniform.",
        )
    return score / score.max(), size, names


def _fill(
    score: np.ndarray, size: np.ndarray, floor: np.ndarray, lower: np.ndarray, total: int
) -> np.ndarray:
    """Finds the rate by walking the breakpoints of the piecewise linear sum of what is kept.

    Args:
        score: What a group gains per unit of the rate, not negative.
        size: Largest number that a group keeps.
        floor: What a group would keep at rate zero.
        lower: Smallest number that a group keeps.
        total: The sum of what is kept.

    Returns:
        ``min(size, max(lower, floor + rate score))``, real numbers; what is left once all of
        positive score are full goes to the others in proportion to their room.
    """
    score = np.where(score < NEGLIGIBLE, 0, score)
    positive = score > 0
    base = np.maximum(lower, floor)  # kept while the rate is 0
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
