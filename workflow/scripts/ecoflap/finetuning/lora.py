"""SparseLoRA: a low-rank update of each pruned matrix that is zero where the matrix is.

He, Li, Chen: Rethinking Pruning for Vision-Language Models: Strategies for Effective Sparsity and
Performance Restoration, 2024 (arXiv 2404.02424).
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from ecoflap.errors import ConfigError
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    from ecoflap.models.model import Model


class SparseUpdate(nn.Module):
    """Adds ``keep * (up @ down)`` to a weight [n_out, n_in] that stays as it is."""

    gone: torch.Tensor

    def __init__(self, weight: torch.Tensor, gone: torch.Tensor, *, rank: int, seed: int):
        """Starts at no update.

        Args:
            weight: The pruned weight, [n_out, n_in].
            gone: Where nothing may be added, bool [n_out, n_in].
            rank: Rank of the update.
            seed: Seeds ``down``; ``up`` starts at zero.
        """
        super().__init__()
        n_out, n_in = weight.shape
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, n_in, generator=generator) / math.sqrt(n_in)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(n_out, rank, device=weight.device))
        self.register_buffer("gone", gone, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the weight with the update, in float32, as it will be merged."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.up @ self.down).masked_fill(self.gone, 0)


def check_rank(model: "Model", rank: int) -> None:
    """Refuses a rank that an update of some matrix cannot have.

    Raises:
        ConfigError: naming the matrix with the shortest side.
    """
    least = min(model.matrices(), key=lambda matrix: min(matrix.module.weight.shape))
    n_out, n_in = least.module.weight.shape
    if rank > min(n_out, n_in):
        raise ConfigError(
            f"rank {rank} for a model in which {least.name} is {n_out} x {n_in}",
            allowed=f"1 to {min(n_out, n_in)}",
            fix="Lower the rank of the fine-tuning.",
        )


def add(
    model: "Model", masks: dict[str, torch.Tensor], *, rank: int, seed: int
) -> dict[str, nn.Parameter]:
    """Gives each prunable matrix an update and freezes everything else.

    Args:
        model: A pruned model in float32.
        masks: Which weights are gone, by name of the matrix, bool [n_out, n_in].
        rank: Rank of the updates.
        seed: With a matrix's name it seeds its update.

    Returns:
        What is trained, by name: two parameters for each matrix.
    """
    model.module.requires_grad_(False)
    trained = {}
    for matrix in model.matrices():
        update = SparseUpdate(
            matrix.module.weight.detach(),
            masks[matrix.name],
            rank=rank,
            seed=seed_from("lora", seed, matrix.name),
        )
        parametrize.register_parametrization(matrix.module, "weight", update)
        trained |= {f"{matrix.name}.up": update.up, f"{matrix.name}.down": update.down}
    return trained


def drop(model: "Model") -> None:
    """Takes updates off that were not merged; the weights are those of before."""
    for matrix in model.matrices():
        if parametrize.is_parametrized(matrix.module, "weight"):
            parametrize.remove_parametrizations(matrix.module, "weight", leave_parametrized=False)


def merge(model: "Model") -> None:
    """Puts the updates into the weights; the model is a plain one again."""
    for matrix in model.matrices():
        parametrize.remove_parametrizations(matrix.module, "weight", leave_parametrized=True)
