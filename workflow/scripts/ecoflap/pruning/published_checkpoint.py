"""A published checkpoint as a row of a table: its weights instead of a pruning of ours."""

import math
from typing import TYPE_CHECKING

import torch

from ecoflap.allocation import exact
from ecoflap.errors import PruningError
from ecoflap.models.checkpoints import pth
from ecoflap.models.model import Model
from ecoflap.pruning.layerwise import report_row, report_table

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.01  # between the sparsity of a path and that of the weights


def take_checkpoint(
    model: Model, *, file: str, form: str, sparsity: str | float
) -> tuple["pd.DataFrame", dict[str, torch.Tensor]]:
    """Puts the weights of a ``.pth`` file into a dense model, in place.

    Args:
        model: The dense model that the checkpoint was made from.
        file: The file.
        form: A format of `ecoflap.models.checkpoints.pth`.
        sparsity: What the checkpoint is said to have, over all prunable weights.

    Returns:
        The columns of `prune`'s report, and the changed weights that are no prunable matrices.

    Raises:
        ModelError: if the file cannot be read or does not fit.
        PruningError: if its zeros are not the sparsity, within 0.01.
    """
    changed = pth.put(model, pth.read(file, form))
    rows, zeros, total = [], 0, 0
    for matrix in model.matrices():
        changed.pop(f"{matrix.name}.weight", None)
        gone = int((matrix.module.weight == 0).sum())
        share = gone / matrix.n_weights
        rows.append(report_row(model, matrix, share, share, math.nan, math.nan, 0.0))
        zeros, total = zeros + gone, total + matrix.n_weights
    if abs(zeros / total - exact(sparsity)) > TOLERANCE:
        raise PruningError(
            f"'{file}' has a sparsity of {zeros / total:.4f}",
            allowed=f"{sparsity}, as the experiment says, within {TOLERANCE}",
            fix="Correct the sparsities of the experiment, or name another file.",
        )
    return report_table(rows), changed
