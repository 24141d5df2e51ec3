"""Allocations that tilt the same share for all by a bounded amount: OWL, DLP, AlphaPruning."""

from collections.abc import Collection, Sequence

import numpy as np

from ecoflap.allocation.integers import budget, exact, rounded
from ecoflap.allocation.water_filling import checked
from ecoflap.errors import InfeasibleError

OWL_LAMBDA = 0.08  # as published: sparsities differ by at most twice this
DLP_ALPHA = 0.15  # as published: sparsities differ by at most twice this
# Sparsities are between 1 - tau and 1 + tau, scaled. One of the values of the authors' scripts,
# which have 0.2, 0.3 and more by model and criterion.
ALPHA_TAU = 0.2


def uniform(sizes: Collection[int], sparsity: str | float) -> list[int]:
    """Keeps the same fraction of every group, rounded to the exact budget.

    Args:
        sizes: Weights per group.
        sparsity: Fraction of all weights to remove.
    """
    share = 1 - exact(sparsity)
    size = np.asarray(list(sizes), dtype=np.int64)
    kept = np.array([float(share * int(n)) for n in size])
    return rounded(kept, np.zeros(len(size)), np.zeros_like(size), size, budget(sizes, sparsity))


def outlier_weighted(
    ratios: Collection[float],
    sizes: Collection[int],
    sparsity: str | float,
    *,
    strength: float = OWL_LAMBDA,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Keeps more where there are more outliers (OWL, Yin et al. 2023).

    ``keep_g = n_g (1 - p + d_g - mean(d))`` with d the ratios scaled to [0, 2 lambda]. The mean is
    weighted by size, so that the budget is exact for groups of any size.

    Args:
        ratios: Share of outliers per group, finite, not negative, not all zero.
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        strength: Lambda.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group.

    Raises:
        AllocationError: for ratios without a meaning; `InfeasibleError` where a group would keep
            less than nothing or more than it has.
    """
    ratio, size, names = checked(ratios, sizes, names)
    return _shifted(ratio, size, sparsity, width=2 * strength, method="OWL", names=names)


def median_weighted(
    medians: Collection[float],
    sizes: Collection[int],
    sparsity: str | float,
    *,
    strength: float = DLP_ALPHA,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Keeps more where the median metric is smaller (DLP, Chen et al. 2025).

    A group's importance is ``1 - S_g / sum(S)``; what it keeps follows from that as in
    `outlier_weighted`, with [0, 2 alpha]. This is the paper's text: the authors' public code for
    unstructured sparsity takes the mean of the metric where the text says median.

    Args:
        medians: S, the median of Wanda's metric per group, finite, not negative, not all zero.
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        strength: Alpha.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group.

    Raises:
        AllocationError: as `outlier_weighted`.
    """
    median, size, names = checked(medians, sizes, names)
    importance = 1 - median / median.sum()
    return _shifted(importance, size, sparsity, width=2 * strength, method="DLP", names=names)


def spectrum_weighted(
    alphas: Collection[float],
    sizes: Collection[int],
    sparsity: str | float,
    *,
    strength: float = ALPHA_TAU,
    names: Sequence[str] | None = None,
) -> list[int]:
    """Keeps more where spectra have heavier tails (AlphaPruning, Lu et al. 2024).

    The sparsity of a group is proportional to ``1 - tau + 2 tau (alpha - min) / (max - min)``
    scaled so that all groups together lose the fraction p.

    Args:
        alphas: Power-law exponent per group, finite, not negative, not all zero.
        sizes: Weights per group.
        sparsity: Fraction p of all weights to remove.
        strength: Tau.
        names: Names of the groups for messages.

    Returns:
        The weights kept per group.

    Raises:
        AllocationError: for exponents without a meaning; `InfeasibleError` where a group would
            lose more than it has.
    """
    alpha, size, names = checked(alphas, sizes, names)
    weight = 1 - strength + 2 * strength * _to_unit(alpha)
    share = 1 - float(exact(sparsity)) * weight / np.average(weight, weights=size)
    return _integers(share, -alpha, size, sparsity, method="AlphaPruning", names=names)


def _to_unit(values: np.ndarray) -> np.ndarray:
    """Scales values to [0, 1]; equal ones all to 0."""
    spread = values.max() - values.min()
    return (values - values.min()) / (spread if spread > 0 else 1)


def _shifted(
    importance: np.ndarray,
    size: np.ndarray,
    sparsity: str | float,
    *,
    width: float,
    method: str,
    names: Sequence[str],
) -> list[int]:
    """Adds the importance, scaled to [0, width] and centred, to the share that stays."""
    d = width * _to_unit(importance)
    share = float(1 - exact(sparsity)) + d - np.average(d, weights=size)
    return _integers(share, importance, size, sparsity, method=method, names=names)


def _integers(
    share: np.ndarray,
    importance: np.ndarray,
    size: np.ndarray,
    sparsity: str | float,
    *,
    method: str,
    names: Sequence[str],
) -> list[int]:
    """Rounds shares to integers; refuses those that no group can keep."""
    index = int(np.argmax(np.abs(share - 0.5)))
    if abs(share[index] - 0.5) > 0.5 + 1e-12:  # the mean is a float
        raise InfeasibleError(
            f"sparsity {float(exact(sparsity)):.6g}: {method} would keep {share[index]:.3f} of "
            + names[index],
            allowed=f"shares from 0 to 1; here they are {share.min():.3f} to {share.max():.3f}",
            fix="Choose a sparsity farther from 0 and 1, less strength, or another allocation.",
        )
    nothing = np.zeros_like(size)
    return rounded(share * size, importance, nothing, size, budget(size, sparsity))
