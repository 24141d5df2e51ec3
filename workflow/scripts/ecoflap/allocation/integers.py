"""The integers of a budget: how many weights stay in all, per group and per matrix."""

from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np

from ecoflap.errors import AllocationError

Sparsity = str | float


def exact(sparsity: Sparsity) -> Fraction:
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
            f"sparsity {sparsity!r}",
            allowed="a decimal number from 0 up to but not including 1, the fraction removed",
            fix='Write it like "0.5".',
        )
    return value


def budget(sizes: Collection[int], sparsity: Sparsity) -> int:
    """Returns the number of weights that stay: round((1 - p) N), half to even."""
    return round((1 - exact(sparsity)) * sum(int(size) for size in sizes))


def largest_sparsity(sparsity: Sparsity, given: Sparsity = "+0.1") -> str:
    """Returns p_max as decimal text.

    Args:
        sparsity: Fraction p that is removed in all.
        given: ``+0.1`` for p + 0.1, at most 0.9999; without the sign p_max itself.
    """
    text = str(given).strip()
    if not text.startswith("+"):
        return text
    value = min(exact(sparsity) + exact(text[1:]), Fraction(9999, 10000))
    return f"{float(value):.6g}"


def floors(
    sizes: Collection[int], sparsity: Sparsity, max_sparsity: Sparsity
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each group keeps at least when none may lose more than p_max.

    Args:
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        max_sparsity: Largest fraction p_max that a group may lose.

    Returns:
        ``n_g (1 - p_max)`` as real numbers, and as integers: rounded up, or down where the
        budget is too tight for that.

    Raises:
        AllocationError: if p is above p_max.
    """
    p, p_max = exact(sparsity), exact(max_sparsity)
    if p > p_max:
        raise AllocationError(
            f"sparsity {float(p):.6g} is above max_sparsity (p_max) {max_sparsity}",
            allowed="max_sparsity of at least the sparsity",
            fix="Raise max_sparsity or lower the sparsity.",
        )
    fractions = [(1 - p_max) * int(size) for size in sizes]
    whole = np.array([-(-f.numerator // f.denominator) for f in fractions], dtype=np.int64)
    if whole.sum() > budget(sizes, sparsity):
        whole = np.array([f.numerator // f.denominator for f in fractions], dtype=np.int64)
    return np.array([float(f) for f in fractions]), whole


def rounded(
    kept: np.ndarray, score: np.ndarray, lower: np.ndarray, size: np.ndarray, total: int
) -> list[int]:
    """Rounds to integers of the exact sum by largest remainder, larger scores first on ties.

    Args:
        kept: Real numbers of about that sum.
        score: Decides between equal remainders, then the position does.
        lower: Smallest integer of each.
        size: Largest integer of each.
        total: The sum.
    """
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


def split(n_weights: np.ndarray, group: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Shares each group's integer over its matrices, in proportion to their size.

    Args:
        n_weights: Weights per matrix.
        group: The group of each matrix.
        kept: The weights kept per group.

    Returns:
        The weights kept per matrix.
    """
    result = np.zeros(len(n_weights), dtype=np.int64)
    for index, total in enumerate(kept):
        rows = np.flatnonzero(group == index)
        size = n_weights[rows].astype(np.int64)
        share = size * (total / size.sum())
        zeros = np.zeros_like(size)
        result[rows] = rounded(share, zeros, zeros, size, int(total))
    return result


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
            f"a matrix of {odd[0]} weights with N:{of}",
            allowed=f"multiples of {of}",
            fix="Change M.",
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
