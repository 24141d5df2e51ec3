"""``allocation: auto``: tries several allocations at several strengths, keeps what loses least."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ecoflap import allocation
from ecoflap.engine import replay
from ecoflap.errors import InfeasibleError, PruningError
from ecoflap.models.inputs import n_samples
from ecoflap.models.model import Model
from ecoflap.pruning import layerwise

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
Batches = Iterable[Mapping[str, torch.Tensor]]


class Choice(NamedTuple):
    """What `choose_plan` found.

    Attributes:
        rows: A row per candidate and strength: candidate (its place), method, score, strength
            (``max_sparsity`` or the method's own number, of two levels both; empty without one),
            loss (mean over the held-out samples; NaN where the sparsity leaves no such plan),
            chosen (True for the smallest loss, the first one on a tie).
        settings: Those of the chosen one, as `ecoflap.allocation.plan_from` takes them.
        plan: Its plan.
    """

    rows: "pd.DataFrame"
    settings: dict[str, Any]
    plan: "pd.DataFrame"


def choose_plan(
    model: Model,
    batches: Batches,
    held_out: Batches,
    scores: Mapping[str | None, "pd.DataFrame"],
    candidates: Sequence[Mapping[str, Any]],
    *,
    sparsity: str | float,
    pruning_settings: Mapping[str, Any] | None = None,
) -> Choice:
    """Prunes with each plan and measures the loss on batches that took no part in anything.

    The model is pruned as often as there are candidates and strengths, and dense again at the end.

    Args:
        model: A dense model, not offloaded to the disk.
        batches: Calibration batches for the pruning pass.
        held_out: Batches that neither the scores nor the pruning pass have seen.
        scores: What `ecoflap.score` returned, by the names that candidates use.
        candidates: Settings of `ecoflap.allocation.plan_from`, each tried at the strengths of
            `ecoflap.allocation.each_strength`.
        sparsity: Fraction p of all weights to remove.
        pruning_settings: Further arguments of `ecoflap.prune`.

    Returns:
        The plan with the smallest loss, and how all did.

    Raises:
        ModelError: if there is no held-out batch.
        AllocationError: for settings or scores from which no plan can be made at any sparsity.
        PruningError: if no plan gives a finite loss.
    """
    import pandas as pd

    batches, held_out = list(batches), model.ready(held_out)
    rows, tried, best = [], [], None
    for number, candidate in enumerate(candidates):
        for settings in allocation.each_strength(candidate):
            method = settings.get("method", "ecoflap")
            strength = allocation.strength_of(settings)
            loss, plan = math.nan, None
            try:
                plan = allocation.plan_from(scores, settings, sparsity)
            except InfeasibleError as error:
                log.info("%s %s: %s", method, strength, error)
            else:
                with dense_afterwards(model):
                    layerwise.prune(model, batches, plan, **(pruning_settings or {}))
                    loss = mean_loss(model, held_out)
                log.info("%s %s: held-out loss %.4f", method, strength, loss)
            if loss < (rows[best][-1] if best is not None else math.inf):
                best = len(rows)
            rows.append((number, method, settings.get("score", ""), strength, loss))
            tried.append((settings, plan))
    if best is None:
        raise PruningError(
            "no plan gives a finite loss",
            allowed="finite losses",
            fix="Load the model as float32.",
        )
    table = pd.DataFrame(rows, columns=["candidate", "method", "score", "strength", "loss"])
    return Choice(table.assign(chosen=table.index == best), *tried[best])


@contextmanager
def dense_afterwards(model: Model) -> Iterator[None]:
    """Puts weights and masks back as they were."""
    if model.offload == "disk":
        raise PruningError(
            "a plan is chosen with offload='disk'",
            allowed="a model whose weights fit into the host's memory",
            fix="Load the model with offload='cpu', or name one allocation.",
        )
    masks = dict(model.masks)
    weights = {
        matrix.name: matrix.module.weight.detach().to("cpu", copy=True)
        for matrix in model.resident_matrices()
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for block in model.blocks:
                with model.resident(block.index):
                    for matrix in block.matrices:
                        matrix.module.weight.copy_(weights[matrix.name])
                    model.keep_changes(block)
        model.masks = masks


@torch.no_grad()
def mean_loss(model: Model, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """Returns the loss over batches, each weighted by its samples."""
    total = count = 0.0
    for batch in batches:
        samples = n_samples(batch)
        loss, _ = replay.run(
            model.block_modules(),
            lambda batch=batch: model.loss(batch),
            keep=lambda block: False,
            around=model.resident,
            places=replay.Places(model.device),
        )
        total += loss.double().item() * samples
        count += samples
    return total / count
