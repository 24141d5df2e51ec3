"""What the scores from a criterion's own local metric share."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.engine.walk import Walk

if TYPE_CHECKING:
    from ecoflap.models.model import Model


def metrics(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    criterion: ModuleType,
    label: str,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Walks the dense model block by block and yields a criterion's metric of each matrix.

    Args:
        model: The model, not changed.
        batches: Calibration batches on the model's device.
        criterion: A module of `ecoflap.criteria` with a ``metric``.
        label: Shown by the progress bar.

    Yields:
        The name of a matrix and its metric [n_out, n_in].
    """
    walk = Walk(model, batches, criterion)
    for block in tqdm(walk, desc=label, unit="block", disable=None):
        statistics = walk.statistics(block)
        for matrix in block.matrices:
            weight = matrix.module.weight.detach()
            yield matrix.name, criterion.metric(weight, statistics[matrix.name])
        walk.advance(block)


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
    return {
        name: metric.mean(dtype=torch.float64).item()
        for name, metric in metrics(model, batches, criterion, "local score")
    }
