"""SparseGPT's local metric as a global score."""

from functools import partial

from ecoflap.criteria import sparsegpt
from ecoflap.scores._local import mean_metric

SETTINGS: dict[str, float] = {}
compute = partial(mean_metric, criterion=sparsegpt)
