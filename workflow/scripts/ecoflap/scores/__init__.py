"""Global scores: one number per weight matrix, most of them from the loss of the whole model.

A score is a module with ``compute(model, batches, *, seed, **settings)`` and ``SETTINGS``, the
settings it takes with their defaults. ``compute`` returns by matrix name a number, or a number
with the histogram of what it was made of (`ecoflap.scores._histogram.Scored`).
"""

import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ecoflap.engine.checks import check_batch
from ecoflap.errors import ArtifactError, ConfigError, PruningError
from ecoflap.plugins import LOSS_SCORES, SCORES, reads_loss, unknown
from ecoflap.scores._histogram import Scored

if TYPE_CHECKING:
    import pandas as pd

    from ecoflap.models.model import Model


def score(
    model: "Model",
    batches: Iterable[Mapping[str, torch.Tensor]],
    *,
    estimator: str = "gradnorm",
    seed: int = 0,
    blocks: Collection[int] | None = None,
    **settings: float,
) -> "pd.DataFrame":
    """Scores every prunable matrix of a model.

    Args:
        model: What `ecoflap.load` returned.
        batches: Dicts of tensors that the model's forward takes, labels included.
        estimator: ``gradnorm``, ``zeroth``, ``first``, ``fisher``, ``magnitude``, ``local-wanda``
            or ``local-sparsegpt``; for one allocation each: ``outliers`` (``owl``), ``medians``
            (``dlp``), ``spectrum`` and ``spectrum-middle`` (``alphapruning``), ``elements`` and
            ``elements-magnitude`` (``global``), ``lamp``.
        seed: Seeds the noise of ``zeroth``, together with matrix, batch and draw.
        blocks: Indices into ``model.blocks`` (``zeroth`` only): score these alone. The rows of
            several such runs are those of one run over all blocks.
        **settings: Settings of the estimator: ``zeroth`` takes ``draws`` and ``epsilon``.

    Returns:
        One row per matrix: tower, block, name, n_weights, n_out, n_in, score, draws; with
        ``medians``, ``elements``, ``elements-magnitude`` and ``lamp`` also the histogram of all
        its weights, buckets and counts.

    Raises:
        ConfigError: for an unknown estimator or setting.
        ModelError: if there is no batch or one is not a dict of tensors.
        PruningError: if a loss or a score is not finite.
    """
    module = SCORES.get(estimator)
    for name in settings:
        if name not in module.SETTINGS:
            raise ConfigError(unknown(f"setting of the score {estimator}", name, module.SETTINGS))
        whole = isinstance(module.SETTINGS[name], int)
        kind = numbers.Integral if whole else numbers.Real
        if not isinstance(settings[name], kind) or not settings[name] > 0:
            allowed = f"a {'whole ' if whole else ''}number above 0"
            raise ConfigError(f"{name} {settings[name]!r}", allowed=allowed, fix=f"Correct {name}.")
    batches = model.ready(batches)
    frame = matrix_table(model)
    told: dict[str, Any] = {**module.SETTINGS, **settings}
    if blocks is not None:
        if estimator != "zeroth":
            raise ConfigError(
                f"blocks with the estimator {estimator}",
                allowed="blocks with zeroth: the other scores see all blocks in one pass",
                fix="Remove blocks.",
            )
        count = len(model.blocks)
        if not isinstance(blocks, Collection) or not blocks or not set(blocks) <= set(range(count)):
            raise ConfigError(
                f"blocks {blocks!r}",
                allowed=f"numbers from 0 to {count - 1}",
                fix="Correct them.",
            )
        names = {model.blocks[index].name for index in blocks}
        frame = frame[frame["block"].isin(names)].reset_index(drop=True)
        told["blocks"] = blocks
    if reads_loss(estimator):
        check_batch(model, batches[0])
    values = module.compute(model, batches, seed=seed, **told)
    frame.attrs["estimator"] = estimator  # what `ecoflap.allocate` checks
    frame = _filled(frame, values, told.get("draws", 0))
    if blocks is None:
        check_towers(frame)
    return frame


def check_towers(frame: "pd.DataFrame") -> None:
    """Refuses scores of a loss that does not depend on a whole tower.

    Args:
        frame: What `score` returns for all blocks.

    Raises:
        PruningError: if all scores of a tower are exactly 0.
    """
    if frame.attrs.get("estimator") not in LOSS_SCORES:
        return
    for tower, scores in frame.groupby("tower", sort=False)["score"]:
        if (scores == 0).all():
            raise PruningError(
                f"every score of the {tower} tower is 0: the loss does not depend on it",
                allowed="batches on which each tower changes the loss",
                fix="Check that processor and tokenizer belong to the model, and the batches' "
                "labels; or leave this tower's lists out with load(..., blocks=...).",
            )


def _filled(frame: "pd.DataFrame", values: Mapping, draws: float) -> "pd.DataFrame":
    """Returns the table of matrices with what an estimator found for each."""
    missing = [name for name in frame["name"] if name not in values]
    if missing:
        raise PruningError(
            f"the model never runs {missing[0]} on these batches ({len(missing)} in all)",
            allowed="batches that reach every block",
            fix="Pass batches with all inputs of the model.",
        )
    found = [values[name] for name in frame["name"]]
    histograms = bool(found) and all(isinstance(value, Scored) for value in found)
    frame["score"] = [float(value.score if histograms else value) for value in found]
    frame["draws"] = int(draws)
    if histograms:
        frame["buckets"] = [value.buckets for value in found]
        frame["counts"] = [value.counts for value in found]
    bad = frame[~frame["score"].map(lambda value: 0 <= value < float("inf"))]
    if len(bad):
        row = bad.iloc[0]
        raise PruningError(
            f"the score of {row['name']} is {row['score']}",
            allowed="finite numbers of at least 0",
            fix="Load the model as float32 or bfloat16 and check the calibration data.",
        )
    return frame


def matrix_table(model: "Model") -> "pd.DataFrame":
    """Lists the prunable matrices of a model: tower, block, name, n_weights, n_out, n_in."""
    import pandas as pd

    rows = [
        (m.tower, model.blocks[m.block].name, m.name, m.n_weights, *m.module.weight.shape)
        for m in model.matrices()
    ]
    return pd.DataFrame(rows, columns=["tower", "block", "name", "n_weights", "n_out", "n_in"])


def gather(tables: Sequence["pd.DataFrame"], matrices: Sequence[Mapping]) -> "pd.DataFrame":
    """Puts the rows of all shards into one table.

    Args:
        tables: What the jobs found.
        matrices: The model's prunable matrices, from its manifest.

    Returns:
        The table that one job would have made.

    Raises:
        ArtifactError: if matrices are missing or scored twice.
        PruningError: as `ecoflap.scores.check_towers`.
    """
    import pandas as pd

    # A shard without matrices has columns without a type, which would spoil those of the others.
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    expected = [matrix["name"] for matrix in matrices]
    if list(table["name"]) != expected:
        raise ArtifactError(
            f"the shards hold {len(table)} matrices, not those of the model in their order",
            allowed=f"each of its {len(expected)} matrices once",
            fix="Delete the shards and run their rule again.",
        )
    table.attrs = tables[0].attrs
    check_towers(table)
    return table
