"""Turns scores into one sparsity per group under an exact integer budget.

Groups are blocks unless asked otherwise. Needs numpy and pandas, never torch.
"""

from ecoflap.allocation.filling import NEGLIGIBLE, above_threshold, budgets, erdos_renyi
from ecoflap.allocation.histogram import Histograms, pooled
from ecoflap.allocation.integers import budget, default_max_sparsity, exact, n_of_m
from ecoflap.allocation.methods import METHODS, Groups, Method
from ecoflap.allocation.table import GRANULARITIES, REDUCTIONS, allocate
from ecoflap.allocation.tilting import (
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
    "default_max_sparsity",
    "erdos_renyi",
    "exact",
    "median_weighted",
    "n_of_m",
    "outlier_weighted",
    "pooled",
    "spectrum_weighted",
    "uniform",
]
