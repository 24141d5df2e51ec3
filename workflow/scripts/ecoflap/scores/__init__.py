"""Global scores: one number per weight matrix, from the loss of the whole model.

A score is a module with ``compute(model, batches, *, seed, **settings) -> dict[str, float]``
and ``SETTINGS``, the settings it takes with their defaults.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from ecoflap.errors import ConfigError, PruningError, message
from ecoflap.registry import SCORES, unknown

if TYPE_CHECKING:
    import pandas as pd

    from ecoflap.models.base import Model


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
        estimator: ``gradnorm``, ``zeroth``, ``first``, ``fisher``, ``magnitude``, ``local-wanda``,
            ``local-sparsegpt`` or ``outliers`` (for the allocation ``owl``).
        seed: Seeds the noise of ``zeroth``, together with matrix, batch and draw.
        blocks: Indices into ``model.blocks`` (``zeroth`` only): score these alone. The rows of
            several such runs are those of one run over all blocks.
        **settings: Settings of the estimator: ``zeroth`` takes ``draws`` and ``epsilon``.

    Returns:
        One row per matrix: tower, block, name, n_weights, score, draws.

    Raises:
        ConfigError: for an unknown estimator or setting.
        PruningError: if a loss or a score is not finite, or there is no batch.
    """
    module = SCORES.get(estimator)
    for name in settings:
        if name not in module.SETTINGS:
            raise ConfigError(unknown(f"setting of the score {estimator}", name, module.SETTINGS))
    batches = [model.to_device(batch) for batch in batches]
    if not batches:
        raise PruningError(message("no calibration batch", "at least one", "Pass batches."))
    settings = {**module.SETTINGS, **settings}
    frame = matrix_table(model)
    if blocks is not None:
        if estimator != "zeroth":
            raise ConfigError(
                message(
                    f"blocks with the estimator {estimator}",
                    "blocks with zeroth: the other scores see all blocks in one pass",
                    "Remove blocks.",
                )
            )
        names = {model.blocks[index].name for index in blocks}
        frame = frame[frame["block"].isin(names)].reset_index(drop=True)
        values = module.compute(model, batches, seed=seed, blocks=blocks, **settings)
    else:
        values = module.compute(model, batches, seed=seed, **settings)
    missing = [name for name in frame["name"] if name not in values]
    if missing:
        raise PruningError(
            message(
                f"the model never runs {missing[0]} on these batches ({len(missing)} in all)",
                "batches that reach every block",
                "Pass batches with all inputs of the model.",
            )
        )
    frame["score"] = [float(values[name]) for name in frame["name"]]
    frame["draws"] = int(settings.get("draws", 0))
    bad = frame[~frame["score"].map(lambda value: 0 <= value < float("inf"))]
    if len(bad):
        row = bad.iloc[0]
        raise PruningError(
            message(
                f"the score of {row['name']} is {row['score']}",
                "finite numbers of at least 0",
                "Load the model as float32 or bfloat16 and check the calibration data.",
            )
        )
    return frame


def matrix_table(model: "Model") -> "pd.DataFrame":
    """Lists the prunable matrices of a model: tower, block, name, n_weights."""
    import pandas as pd

    rows = [(m.tower, model.blocks[m.block].name, m.name, m.n_weights) for m in model.matrices()]
    return pd.DataFrame(rows, columns=["tower", "block", "name", "n_weights"])
