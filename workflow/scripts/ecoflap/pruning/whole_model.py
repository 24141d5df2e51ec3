"""Baselines that compare weights over a whole model or a whole tower instead of one matrix."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.allocation import exact
from ecoflap.engine.checks import check_batch
from ecoflap.engine.gradients import over_batches
from ecoflap.masks import pack_mask, unpack_mask
from ecoflap.models.model import Matrix, Model
from ecoflap.pruning.layerwise import report_row, report_table

if TYPE_CHECKING:
    import pandas as pd

OBD_STEPS = 3
INFINITY_BITS = 0x7F800000
Importance = Callable[[Matrix], torch.Tensor]


def prune_global_magnitude(model: Model, sparsity: str | float) -> "pd.DataFrame":
    """Removes the weights of smallest absolute value over the whole model, in place.

    Args:
        model: What `ecoflap.load` returned; its ``masks`` are filled.
        sparsity: Fraction of all prunable weights to remove.

    Returns:
        The columns of `prune`'s report; seconds count from the start.
    """
    start = time.perf_counter()
    total = sum(matrix.n_weights for matrix in model.matrices())
    removed = total - round((1 - exact(sparsity)) * total)
    _remove_smallest(
        model, list(model.matrices()), lambda m: m.module.weight.detach().abs().float(), removed
    )
    model.history.append(("pruning", {"criterion": "global-magnitude"}))
    return _report(model, start)


def prune_iterative_obd(
    model: Model, batches: Iterable[Mapping[str, torch.Tensor]], sparsity: str | float
) -> "pd.DataFrame":
    """Optimal brain damage in three steps, each tower by itself, in place.

    Step i of 3 removes the weights of smallest ``W^2 mean_batch((dL/dW)^2)`` until the fraction
    ``p^(3 / i)`` of the tower is gone, with gradients of the model as the step before left it
    (LeCun et al. 1990; the iterative baseline of the paper). What is gone stays gone.

    Args:
        model: What `ecoflap.load` returned; its ``masks`` are filled.
        batches: Calibration batches. Squared gradients are summed on the host, in float32.
        sparsity: Fraction p of each tower's prunable weights to remove.

    Returns:
        The columns of `prune`'s report; seconds count from the start.

    Raises:
        ModelError: if there is no batch.
        PruningError: if a gradient is not finite.
    """
    start = time.perf_counter()
    batches = model.ready(batches)
    check_batch(model, batches[0])
    p = exact(sparsity)
    for step in range(1, OBD_STEPS + 1):
        fisher: dict[str, torch.Tensor] = {}
        label = f"iterative-obd {step}/{OBD_STEPS}"
        for values in over_batches(model, batches, lambda _, w, g: g.square().cpu(), label):
            for name, value in values.items():
                fisher[name] = value + fisher[name] if name in fisher else value
        for tower in dict.fromkeys(matrix.tower for matrix in model.matrices()):
            matrices = [matrix for matrix in model.matrices() if matrix.tower == tower]
            total = sum(matrix.n_weights for matrix in matrices)
            share = p if step == OBD_STEPS else float(p) ** (OBD_STEPS / step)
            removed = total - round((1 - share) * total)
            _remove_smallest(
                model, matrices, lambda matrix, fisher=fisher: _damage(matrix, fisher), removed
            )
    model.history.append(("pruning", {"criterion": "iterative-obd"}))
    return _report(model, start)


def _damage(matrix: Matrix, fisher: Mapping[str, torch.Tensor]) -> torch.Tensor:
    weight = matrix.module.weight.detach().float()
    if matrix.name not in fisher:
        return torch.zeros_like(weight)
    return weight.square() * fisher[matrix.name].to(weight.device)


def _remove_smallest(
    model: Model, matrices: Sequence[Matrix], importance: Importance, count: int
) -> None:
    """Removes the weights of smallest importance over some matrices until so many are gone.

    The threshold is found by bisection on the bit patterns of the importances, which are ordered
    like the values, so that no copy of all of them is ever made. Weights that are gone already
    come first; ties at the threshold go in the order of the matrices until the count is exact.

    Args:
        model: The model; its ``masks`` are read and filled.
        matrices: What is compared.
        importance: Gives the importance of each weight, not negative, float32 [n_out, n_in].
        count: How many weights are gone afterwards.
    """

    def below(bound: int) -> int:
        return sum(int((keys <= bound).sum()) for _, keys in _keys(model, matrices, importance))

    low, high = 0, INFINITY_BITS + 1
    while low < high:  # the smallest key that at least `count` weights do not exceed
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle) >= count else (middle + 1, high)
    ties = count - below(low - 1)
    for matrix, keys in _keys(model, matrices, importance):
        mask = keys < low
        equal = (keys == low).flatten().nonzero().squeeze(1)[: max(ties, 0)]
        mask.view(-1)[equal] = True
        ties -= len(equal)
        with torch.no_grad():
            matrix.module.weight.masked_fill_(mask, 0)
        model.masks[matrix.name] = pack_mask(mask)
        model.keep_changes(model.blocks[matrix.block])


def _keys(model: Model, matrices: Sequence[Matrix], importance: Importance):
    """Yields each matrix with integers ordered like its importance; 0 for what is gone."""
    for matrix in matrices:
        with model.resident(matrix.block):
            keys = importance(matrix).view(torch.int32) + 1
            if matrix.name in model.masks:
                shape = tuple(keys.shape)
                gone = unpack_mask(model.masks[matrix.name], shape)
                keys = keys.masked_fill(gone.to(keys.device), 0)
            yield matrix, keys


def _report(model: Model, start: float) -> "pd.DataFrame":
    rows = []
    for matrix in model.matrices():
        mask = unpack_mask(model.masks[matrix.name], tuple(matrix.module.weight.shape))
        achieved = mask.sum().item() / matrix.n_weights
        seconds = time.perf_counter() - start
        rows.append(report_row(model, matrix, achieved, achieved, math.nan, math.nan, seconds))
    return report_table(rows)
