"""Turns scores into one sparsity per group under an exact integer budget.

Groups are blocks unless asked otherwise. Needs numpy and pandas, never torch.
"""

from ecoflap.allocation.histogram import Histograms, pooled
from ecoflap.allocation.integers import budget, exact, largest_sparsity, n_of_m
from ecoflap.allocation.levels import each_strength, plan_from, strength_of
from ecoflap.allocation.methods import METHODS, Groups, Method
from ecoflap.allocation.plan import GRANULARITIES, REDUCTIONS, allocate
from ecoflap.allocation.units import BUDGETS, shares, stack_of
from ecoflap.allocation.water_filling import (
    NEGLIGIBLE,
    above_threshold,
    budgets,
    erdos_renyi,
)
from ecoflap.allocation.weighted_shares import (
    ALPHA_TAU,
    DLP_ALPHA,
    OWL_LAMBDA,
    median_weighted,
    outlier_weighted,
    spectrum_weighted,
    uniform,
)

__all__ = [
    "ALPHA_TAU",
    "BUDGETS",
    "DLP_ALPHA",
    "GRANULARITIES",
    "METHODS",
    "NEGLIGIBLE",
    "OWL_LAMBDA",
    "REDUCTIONS",
    "Groups",
    "Histograms",
    "Method",
    "above_threshold",
    "allocate",
    "budget",
    "budgets",
    "each_strength",
    "erdos_renyi",
    "exact",
    "largest_sparsity",
    "median_weighted",
    "n_of_m",
    "outlier_weighted",
    "plan_from",
    "pooled",
    "shares",
    "spectrum_weighted",
    "stack_of",
    "strength_of",
    "uniform",
]
