"""One call for every way to prune: layer by layer, over the whole model, or as published."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ecoflap.models.model import Model
from ecoflap.plugins import CRITERIA, IMPORTED
from ecoflap.pruning import layerwise, whole_model
from ecoflap.pruning.published_checkpoint import take_checkpoint

if TYPE_CHECKING:
    import pandas as pd


class Pruned(NamedTuple):
    """What `prune_by` did.

    Attributes:
        report: A row per matrix, as `ecoflap.prune` returns it.
        updates_weights: Whether weights that stay were changed.
        further: Changed weights that are no prunable matrices; None if there are none.
    """

    report: "pd.DataFrame"
    updates_weights: bool = False
    further: Mapping[str, torch.Tensor] | None = None


def prune_by(
    model: Model,
    settings: Mapping[str, Any],
    *,
    sparsity: str | float,
    batches: Iterable[Mapping[str, torch.Tensor]] = (),
    plan: "pd.DataFrame | None" = None,
) -> Pruned:
    """Prunes a model in place with any criterion that a variant may have.

    Args:
        model: What `ecoflap.load` returned.
        settings: ``criterion`` and the further arguments of `ecoflap.prune`; with ``imported``
            the ``checkpoint``, its ``file`` and ``format``.
        sparsity: Fraction of all prunable weights to remove.
        batches: Calibration batches, where the criterion reads them.
        plan: What `ecoflap.allocate` returned, where the criterion follows one.
    """
    criterion = settings["criterion"]
    if criterion == "global-magnitude":
        return Pruned(whole_model.prune_global_magnitude(model, sparsity))
    if criterion == "iterative-obd":
        return Pruned(whole_model.prune_iterative_obd(model, batches, sparsity))
    if criterion == IMPORTED:
        given = settings["checkpoint"]
        report, further = take_checkpoint(
            model, file=given["file"], form=given["format"], sparsity=sparsity
        )
        return Pruned(report, updates_weights=True, further=further)
    report = layerwise.prune(model, batches, plan, **settings)
    return Pruned(report, CRITERIA.get(criterion).UPDATES_WEIGHTS)


def removed(model: Model, report: "pd.DataFrame") -> dict[str, float]:
    """Returns which fraction of its prunable weights, and of all its weights, a model has lost.

    Args:
        model: The pruned model.
        report: achieved_sparsity and n_weights of each matrix.

    Returns:
        achieved_sparsity and whole_model_sparsity.
    """
    gone = (report["achieved_sparsity"] * report["n_weights"]).sum()
    return {
        "achieved_sparsity": gone / report["n_weights"].sum(),
        "whole_model_sparsity": gone / sum(p.numel() for p in model.module.parameters()),
    }
