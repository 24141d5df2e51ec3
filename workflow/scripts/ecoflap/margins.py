"""``max_sparsity: auto``: tries a short list of p_max and keeps the one that loses least."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ecoflap import allocation, blocks, pruning
from ecoflap.errors import PruningError, message
from ecoflap.models.base import Model
from ecoflap.models.inputs import n_samples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
MARGINS = ("0.05", "0.1", "0.2", "0.3")
Batches = Iterable[Mapping[str, torch.Tensor]]


def choose_max_sparsity(
    model: Model,
    batches: Batches,
    held_out: Batches,
    scores: "pd.DataFrame",
    *,
    sparsity: str | float,
    margins: Sequence[str] = MARGINS,
    allocation_settings: Mapping[str, Any] | None = None,
    pruning_settings: Mapping[str, Any] | None = None,
) -> "pd.DataFrame":
    """Prunes with each margin and measures the loss on batches that took no part in anything.

    The model is pruned as often as there are margins and is dense again at the end.

    Args:
        model: A dense model, not offloaded to the disk.
        batches: Calibration batches for the pruning pass.
        held_out: Batches that neither the scores nor the pruning pass have seen.
        scores: What `ecoflap.score` returned.
        sparsity: Fraction p of all weights to remove.
        margins: What is added to p, as decimal text; sums above 0.9999 are cut to it.
        allocation_settings: Further arguments of `ecoflap.allocate`.
        pruning_settings: Further arguments of `ecoflap.prune`.

    Returns:
        A row per margin: margin, max_sparsity, loss (mean over the samples), chosen (True for the
        smallest loss, the smaller margin on a tie).

    Raises:
        ModelError: if there is no held-out batch.
        PruningError: if no margin gives a finite loss.
    """
    import pandas as pd

    batches, held_out = list(batches), model.ready(held_out)
    rows = []
    for margin in margins:
        limit = allocation.default_max_sparsity(sparsity, margin)
        plan = allocation.allocate(
            scores, sparsity=sparsity, max_sparsity=limit, **(allocation_settings or {})
        )
        with _dense_afterwards(model):
            pruning.prune(model, batches, plan, **(pruning_settings or {}))
            loss = _mean_loss(model, held_out)
        log.info("p_max %s: held-out loss %.4f", limit, loss)
        rows.append((margin, limit, loss))
    table = pd.DataFrame(rows, columns=["margin", "max_sparsity", "loss"])
    if not table["loss"].lt(float("inf")).any():
        raise PruningError(
            message("no margin gives a finite loss", "finite losses", "Load the model as float32.")
        )
    return table.assign(chosen=table.index == table["loss"].idxmin())


@contextmanager
def _dense_afterwards(model: Model) -> Iterator[None]:
    """Puts weights and masks back as they were."""
    if model.offload == "disk":
        raise PruningError(
            message(
                "max_sparsity auto with offload='disk'",
                "a model whose weights fit into the host's memory",
                "Load the model with offload='cpu', or give max_sparsity a number.",
            )
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
def _mean_loss(model: Model, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """Returns the loss over batches, each weighted by its samples."""
    total = count = 0.0
    for batch in batches:
        samples = n_samples(batch)
        loss, _ = blocks.run(
            model.block_modules(),
            lambda batch=batch: model.loss(batch),
            keep=lambda block: False,
            around=model.resident,
            places=blocks.Places(model.device),
        )
        total += loss.double().item() * samples
        count += samples
    return total / count
