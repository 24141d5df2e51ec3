"""Wanda's metric of every weight, per token, from whose medians DLP makes its sparsities."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap.scores import _per_token
from ecoflap.scores._histogram import Scored, scored
from ecoflap.scores._local import metrics

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SETTINGS: dict[str, float] = {}


def compute(
    model: "Model", batches: Sequence[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, Scored]:
    """``abs(W_ij) ||X_j||_2 / sqrt(n_tokens)`` on the dense model (DLP, Chen et al. 2025).

    The authors do not divide: in a decoder-only model all matrices see the same tokens, and the
    number cancels. Elsewhere the medians of stacks, or of experts, would count tokens.

    Args:
        model: The model, not changed.
        batches: Calibration batches on the model's device.
        seed: Not used: nothing here is random.

    Returns:
        By matrix name, the histogram, and the median of the matrix (the lower one of two) as the
        score.
    """
    return {
        name: scored(metric, metric.median(), name)
        for name, metric in metrics(model, batches, _per_token, "medians")
    }
