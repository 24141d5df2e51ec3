"""Wanda's metric per token: matrices that see different numbers of tokens can be compared."""

import torch

from ecoflap.criteria import wanda


def statistics(inputs: torch.Tensor) -> torch.Tensor:
    """Returns the sum of squares of each input feature, and the number of tokens.

    Args:
        inputs: [n_tokens, n_in], padding removed.

    Returns:
        float32 [n_in + 1].
    """
    return torch.nn.functional.pad(wanda.statistics(inputs), (0, 1), value=len(inputs))


def metric(weight: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """Returns ``abs(W_ij) ||X_j||_2 / sqrt(n_tokens)``, float32 [n_out, n_in].

    Args:
        weight: [n_out, n_in].
        statistics: Sums of what `statistics` returns [n_in + 1].
    """
    return wanda.metric(weight, statistics[:-1] / statistics[-1].clamp(min=1))
