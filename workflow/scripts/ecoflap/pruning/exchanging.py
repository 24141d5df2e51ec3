"""``allocation: search``: exchanges weights between matrices as long as the held-out loss falls.

EvoPress (Sieberling et al. 2025) draws exchanges at random. Here the gradient of the loss at the
pruned weights says, to first order, what each step of each matrix costs, so that a backward and a
forward make many exchanges at once.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from ecoflap import criteria
from ecoflap.allocation import budget
from ecoflap.allocation.integers import rounded
from ecoflap.criteria._selection import UNSTRUCTURED, Selection
from ecoflap.engine.counted import ALL
from ecoflap.engine.gradients import over_batches
from ecoflap.engine.walk import Walk
from ecoflap.errors import PruningError
from ecoflap.models.model import Matrix, Model
from ecoflap.plugins import CRITERIA
from ecoflap.pruning.choosing import Batches, dense_afterwards, mean_loss

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
STEPS = (-0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12)  # sparsities that are tried, about the plan's
LARGEST, SMALLEST = 0.006, 0.0001  # share of all weights that is exchanged at once
GAIN = 0.0001  # of the loss; exchanges that gain less are followed by smaller ones


class Move(NamedTuple):
    """A step of one matrix to a neighbouring sparsity.

    Attributes:
        slope: What it costs, to first order: change of the loss per weight.
        name: The matrix.
        level: Place of the new sparsity.
        weights: How many weights go, or come back.
    """

    slope: float
    name: str
    level: int
    weights: float


def exchange(
    model: Model,
    batches: Batches,
    held_out: Batches,
    plan: "pd.DataFrame",
    *,
    sparsity: str | float,
    pruning_settings: Mapping[str, Any] | None = None,
) -> "pd.DataFrame":
    """Improves a plan by exchanging weights between matrices.

    Each matrix is pruned to several sparsities, from the activations of the model that is pruned
    by the plan. What they cost together is measured on the held-out batches.

    Args:
        model: A dense model, not offloaded to the disk; dense again at the end. Its matrices at
            every sparsity lie in a temporary folder meanwhile.
        batches: Calibration batches for the pruning pass.
        held_out: Batches that neither the scores nor the pruning pass have seen.
        plan: What `ecoflap.allocate` returned.
        sparsity: Fraction p of all weights to remove; the plan's.
        pruning_settings: Further arguments of `ecoflap.prune`; its pattern is unstructured.

    Returns:
        The plan with other numbers: keep, with the exact budget, sparsity and group_sparsity.

    Raises:
        ModelError: if there is no held-out batch.
        PruningError: for a pattern, or if a loss is not finite.
    """
    settings = dict(pruning_settings or {})
    if settings.pop("pattern", UNSTRUCTURED) != UNSTRUCTURED:
        raise PruningError(
            "a search with a pattern", allowed=UNSTRUCTURED, fix="Leave the pattern out."
        )
    batches, held_out = list(batches), model.ready(held_out)
    with dense_afterwards(model), tempfile.TemporaryDirectory() as folder:
        levels = _Levels(model, Path(folder), plan)
        levels.prune(batches, **settings)
        places = _search(model, held_out, levels)
    size = plan["n_weights"].to_numpy()
    kept = size * (1 - np.array([levels.sparsities[n][places[n]] for n in plan["name"]]))
    zeros = np.zeros_like(size)
    keep = rounded(kept, kept, zeros, size, budget(size, sparsity))
    found = plan.assign(keep=keep, sparsity=1 - np.array(keep) / size)
    return found.assign(group_sparsity=found["sparsity"])


class _Levels:
    """The matrices of a model at several sparsities, in files."""

    def __init__(self, model: Model, folder: Path, plan: "pd.DataFrame"):
        self.model, self.folder = model, folder
        self.matrices = {matrix.name: matrix for matrix in model.matrices()}
        self.sparsities: dict[str, list[float]] = {}
        self.start: dict[str, int] = {}
        for name, planned in zip(plan["name"], plan["sparsity"], strict=True):
            steps = [step for step in STEPS if step == 0 or 0 <= planned + step < 1]
            self.sparsities[name] = [planned + step for step in steps]
            self.start[name] = steps.index(0.0)

    def prune(
        self,
        batches: Sequence[Mapping[str, torch.Tensor]],
        *,
        criterion: str = "wanda",
        group: str | None = None,
        tokens: str = ALL,
        ridge: str | float | None = None,
    ) -> None:
        """Makes all of them; the model is left as the plan says."""
        module, model = CRITERIA.get(criterion), self.model
        given = criteria.checked_ridge(ridge, criterion)
        walk = Walk(model, model.ready(batches) if module.NEEDS_INPUTS else [], module, tokens)
        for block in tqdm(walk, desc="levels", unit="block", disable=None):
            statistics, tensors = walk.statistics(block), {}
            for matrix in block.matrices:
                how = group or model.group_of(matrix.tower)
                dense = matrix.module.weight.detach()
                made = [
                    criteria.apply(
                        module, dense, statistics.get(matrix.name), Selection(s, how), given
                    )[0].cpu()
                    for s in self.sparsities[matrix.name]
                ]
                tensors |= {f"{matrix.name}/{place}": tensor for place, tensor in enumerate(made)}
                with torch.no_grad():
                    dense.copy_(made[self.start[matrix.name]])
            save_file(tensors, self._file(block.index))
            model.keep_changes(block)
            walk.advance(block)

    def _file(self, block: int) -> Path:
        return self.folder / f"{block}.safetensors"

    def get(self, matrix: Matrix, place: int) -> torch.Tensor:
        """Returns a matrix at one of its sparsities, [n_out, n_in] on the host."""
        with safe_open(self._file(matrix.block), "pt") as file:
            return file.get_tensor(f"{matrix.name}/{place}")

    def put(self, moves: Mapping[str, int]) -> None:
        """Puts matrices into the model, each at the sparsity of a place."""
        for block in self.model.blocks:
            changed = [matrix for matrix in block.matrices if matrix.name in moves]
            if changed:
                with self.model.resident(block.index), torch.no_grad():
                    for matrix in changed:
                        matrix.module.weight.copy_(self.get(matrix, moves[matrix.name]))
                    self.model.keep_changes(block)


def _search(model: Model, held_out: Sequence[Mapping], levels: _Levels) -> dict[str, int]:
    """Exchanges until no exchange lowers the loss; returns the place of each matrix's sparsity."""
    places, share = dict(levels.start), LARGEST
    total = sum(matrix.n_weights for matrix in levels.matrices.values())
    loss, surplus = mean_loss(model, held_out), 0.0
    log.info("held-out loss %.5f before the search", loss)
    moves = _moves(model, held_out, levels, places)
    while share >= SMALLEST and any(chosen := _balanced(moves, share * total, surplus)):
        new = {move.name: move.level for moved in chosen for move in moved}
        old = {name: places[name] for name in new}
        levels.put(new)
        found = mean_loss(model, held_out)
        log.info("%d exchanged, held-out loss %.5f", len(new), found)
        if not found < loss:
            levels.put(old)
            share /= 2
            continue
        if loss - found < GAIN * abs(loss):
            share /= 2
        away, back = (sum(move.weights for move in moved) for moved in chosen)
        loss, surplus, places = found, surplus + away - back, places | new
        moves = _moves(model, held_out, levels, places)
    return places


def _moves(
    model: Model, held_out: Sequence[Mapping], levels: _Levels, places: Mapping[str, int]
) -> tuple[list[Move], list[Move]]:
    """Returns the steps to more sparsity and those to less, the cheapest ones first."""

    def slopes(name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        matrix, place = levels.matrices[name], places[name]
        found = []
        for level in (place + 1, place - 1):
            change = 0.0  # where there is no such level, nobody asks
            if 0 <= level < len(levels.sparsities[name]):
                other = levels.get(matrix, level).to(weight.device).float()
                change = float((gradient * (other - weight.float())).sum(dtype=torch.float64))
            found.append(change)
        return torch.tensor(found, dtype=torch.float64)

    totals: dict[str, torch.Tensor] = {}
    for values in over_batches(model, held_out, slopes, "slopes"):
        for name, value in values.items():
            totals[name] = totals.get(name, torch.zeros(2, dtype=torch.float64)) + value
    up, down = [], []
    for name, change in totals.items():
        for kind, step, cost in ((up, 1, change[0]), (down, -1, change[1])):
            level = places[name] + step
            if 0 <= level < len(levels.sparsities[name]):
                difference = levels.sparsities[name][level] - levels.sparsities[name][places[name]]
                weights = abs(difference) * levels.matrices[name].n_weights
                mean = float(cost) / len(held_out)
                kind.append(Move(mean / weights, name, level, weights))
    return sorted(up), sorted(down)


def _balanced(
    moves: tuple[list[Move], list[Move]], most: float, surplus: float
) -> tuple[list[Move], list[Move]]:
    """Takes the cheapest steps of both kinds that lower the loss together.

    Args:
        moves: Steps to more sparsity, and to less.
        most: Weights that are exchanged at most.
        surplus: Weights that are removed beyond the budget already.

    Returns:
        The steps to more sparsity and those to less, which remove and give back about as many.
    """
    up, down = ([*reversed(each)] for each in moves)
    away: list[Move] = []
    back: list[Move] = []
    gone, given, used = max(surplus, 0.0), max(-surplus, 0.0), set()
    while up and down and up[-1].slope + down[-1].slope < 0:
        more = gone <= given  # sparsity
        move, taken = (up.pop(), away) if more else (down.pop(), back)
        if move.name in used:
            continue
        if taken and (gone if more else given) + move.weights > most:
            break
        used.add(move.name)
        taken.append(move)
        gone, given = (gone + move.weights, given) if more else (gone, given + move.weights)
    return (away, back) if away and back else ([], [])
