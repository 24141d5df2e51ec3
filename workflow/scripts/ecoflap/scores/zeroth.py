"""The paper's zeroth-order score: how much the loss moves when a matrix is shaken."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.engine import replay as mechanism
from ecoflap.engine import storage
from ecoflap.errors import PruningError
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    from ecoflap.models.model import Block, Matrix, Model

SETTINGS = {"draws": 1, "epsilon": 1e-3}


@torch.no_grad()
def compute(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    *,
    seed: int,
    draws: int,
    epsilon: float,
    blocks: Collection[int] | None = None,
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
        blocks: Indices of the blocks to score, all by default.

    Returns:
        Score by matrix name.
    """
    wanted = [block for block in model.blocks if blocks is None or block.index in blocks]
    # Nothing for blocks that the model never runs.
    totals: defaultdict[str, float] = defaultdict(float)
    steps = len(batches) * sum(len(block.matrices) for block in wanted)
    with tqdm(total=steps, desc="zeroth", unit="matrix", disable=None) as progress:
        for number, batch in enumerate(batches):
            for block, loss in _losses(model, batch, wanted):
                for matrix in block.matrices:
                    for draw in range(draws):
                        noise_seed = seed_from("zeroth", seed, matrix.name, number, draw)
                        totals[matrix.name] += _slope(matrix, loss, noise_seed, epsilon)
                    progress.update()
    return {name: total / (len(batches) * draws) for name, total in totals.items()}


def _losses(
    model: "Model", batch: Mapping[str, torch.Tensor], wanted: Sequence["Block"]
) -> Iterator[tuple["Block", Callable[[], float]]]:
    """Yields blocks with a function that gives the loss, running the blocks from there on."""
    places, modules = storage.places(model), [step.module for step in model.steps()]
    calls, needed = mechanism.survey(modules, lambda: model.loss(batch), model.resident)
    trace = mechanism.Trace()

    def run(start: int, **settings) -> tuple:
        return mechanism.run(
            modules,
            lambda: model.loss(batch),
            trace=trace,
            start=start,
            around=model.resident,
            places=places,
            **settings,
        )

    for index in calls.order():
        block = model.steps()[index]
        if block not in wanted or not block.matrices:
            continue
        start = calls.first_call(index)
        if start > len(trace.calls):
            _, trace = run(len(trace.calls), stop=start - 1)
            trace = trace.cut(start, needed)

        def loss(start=start) -> float:
            return run(start, keep=lambda block: False)[0].double().item()

        with model.resident(index):
            yield block, loss


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
            f"the loss around {matrix.name} is not finite ({above}, {below})",
            allowed="finite losses",
            fix="Load the model as float32 or bfloat16, or lower epsilon.",
        )
    return slope
