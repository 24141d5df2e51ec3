"""Outliers of Wanda's metric, from which OWL (Yin et al. 2023) makes its sparsities."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.engine.walk import Walk
from ecoflap.scores import _per_token

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}
MULTIPLE = 5.0  # of the block's mean, OWL's M


@torch.no_grad()
def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, float]:
    """How many weights of each matrix have a metric above five times the mean of their block.

    The sum over a block divided by its weights is OWL's layerwise outlier distribution. The metric
    is per token: a decoder's cross-attention reads other tokens than the rest of its block. Where
    all matrices of a block see the same tokens, as in a decoder-only model, it cancels.

    Args:
        model: The model, not changed.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        Number of outliers by matrix name.
    """
    outliers = {}
    walk = Walk(model, batches, _per_token)
    for block in tqdm(walk, desc="outliers", unit="block", disable=None):
        statistics = walk.statistics(block)
        metrics = {
            matrix.name: _per_token.metric(matrix.module.weight.detach(), statistics[matrix.name])
            for matrix in block.matrices
        }
        total = sum(metric.sum(dtype=torch.float64).item() for metric in metrics.values())
        mean = total / max(1, sum(metric.numel() for metric in metrics.values()))
        for name, metric in metrics.items():
            outliers[name] = float((metric > MULTIPLE * mean).sum().item())
        walk.advance(block)
    return outliers
