"""What the scores from a criterion's own local metric share."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.walk import Walk

if TYPE_CHECKING:
    from ecoflap.models.base import Model


@torch.no_grad()
def mean_metric(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    *,
    seed: int,
    criterion: ModuleType,
) -> dict[str, float]:
    """Returns the mean over each matrix of a criterion's metric on the dense model.

    The paper's row "sparsities from local scores": what a layer-wise method sees, used globally.

    Args:
        model: The model, not changed.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.
        criterion: A module of `ecoflap.criteria` with a ``metric``.

    Returns:
        Mean by matrix name.
    """
    means = {}
    walk = Walk(model, batches, criterion)
    for block in tqdm(walk, desc="local score", unit="block", disable=None):
        statistics = walk.statistics(block)
        for matrix in block.matrices:
            metric = criterion.metric(matrix.module.weight.detach(), statistics[matrix.name])
            means[matrix.name] = metric.mean(dtype=torch.float64).item()
        walk.advance(block)
    return means
