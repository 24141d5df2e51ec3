"""The paper's zeroth-order score: how much the loss moves when a matrix is shaken."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap import blocks
from ecoflap.errors import PruningError, message
from ecoflap.runtime import seed_from

if TYPE_CHECKING:
    from ecoflap.models.base import Matrix, Model

SETTINGS = {"draws": 1, "epsilon": 1e-3}


@torch.no_grad()
def compute(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    *,
    seed: int,
    draws: int,
    epsilon: float,
) -> dict[str, float]:
    """Mean over batches and draws of ``abs(L(W + eps z) - L(W - eps z)) / (2 eps)``.

    One matrix is perturbed at a time (ECoFLaP, Section 3.2, MeZO-style forwards only). Blocks
    before it are replayed from a cache, since the perturbation cannot change them. The noise
    depends on seed, matrix, batch and draw alone. The weight is restored from a copy: adding and
    subtracting drifts in 16 bits.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        seed: Seed of the noise.
        draws: Directions per matrix and batch.
        epsilon: Size of the step, in units of the weights.

    Returns:
        Score by matrix name.
    """
    totals = {matrix.name: 0.0 for matrix in model.matrices()}
    modules = model.block_modules()
    progress = tqdm(total=len(batches) * len(totals), desc="zeroth", unit="matrix", disable=None)
    for number, batch in enumerate(batches):
        _, trace = blocks.run(modules, lambda batch=batch: model.loss(batch))
        for matrix in model.matrices():
            start = trace.first_call(matrix.block)

            def loss(batch=batch, trace=trace, start=start) -> float:
                value, _ = blocks.run(
                    modules,
                    lambda: model.loss(batch),
                    trace=trace,
                    start=start,
                    keep=lambda block: False,
                )
                return value.double().item()

            for draw in range(draws):
                noise_seed = seed_from("zeroth", seed, matrix.name, number, draw)
                totals[matrix.name] += _slope(matrix, loss, noise_seed, epsilon)
            progress.update()
    progress.close()
    return {name: total / (len(batches) * draws) for name, total in totals.items()}


def _slope(matrix: "Matrix", loss, seed: int, epsilon: float) -> float:
    """Returns the absolute slope of the loss along one random direction."""
    weight = matrix.module.weight
    original = weight.detach().clone()
    generator = torch.Generator(weight.device).manual_seed(seed)
    step = epsilon * torch.randn(
        weight.shape, generator=generator, device=weight.device, dtype=torch.float32
    )
    try:
        weight.copy_(original.float() + step)
        above = loss()
        weight.copy_(original.float() - step)
        below = loss()
    finally:
        weight.copy_(original)
    slope = abs(above - below) / (2 * epsilon)
    if not slope < float("inf"):
        raise PruningError(
            message(
                f"the loss around {matrix.name} is not finite ({above}, {below})",
                "finite losses",
                "Load the model as float32 or bfloat16, or lower epsilon.",
            )
        )
    return slope
