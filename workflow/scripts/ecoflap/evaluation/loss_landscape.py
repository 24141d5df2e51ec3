"""The loss around the dense weights, on a plane of two random directions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.errors import ConfigError, ModelError, PruningError
from ecoflap.models.inputs import n_samples
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    import pandas as pd

    from ecoflap.models.model import Matrix, Model


@torch.no_grad()
def loss_landscape(
    model: "Model",
    batches: Iterable[Mapping[str, torch.Tensor]],
    *,
    radius: float,
    steps: int,
    seed: int = 0,
) -> "pd.DataFrame":
    """Computes the loss on a grid around the weights, along two filter-normalised directions.

    Each direction is Gaussian noise in every prunable matrix, scaled so that each row of it (the
    filter of a Linear) has the norm of the row of weights it is added to (Li et al. 2018,
    "Visualizing the loss landscape of neural nets", Section 4). All other weights stay. Noise is
    seeded by the matrix's name and drawn anew at each point, so that the weights and one copy of
    them are all that is held.

    Args:
        model: What `ecoflap.load` returned; its weights are the same bits afterwards.
        batches: Dicts of tensors that the model's forward takes, labels included.
        radius: Distance of an edge of the grid; 1 is a step as long as the weights.
        steps: Points along an axis, odd, so that the dense weights are one of them.
        seed: Seeds the directions.

    Returns:
        Columns x, y, loss: row by row of the grid, the mean over samples of the loss.

    Raises:
        ConfigError: for a radius or a number of steps that makes no grid.
        ModelError: if the model is offloaded.
        PruningError: if a loss is not finite.
    """
    import pandas as pd

    _check(model, radius, steps)
    batches = model.ready(batches)
    middle = steps // 2
    axis = [radius * (step - middle) / middle for step in range(steps)]
    points = [(x, y) for y in axis for x in axis]
    rows = []
    with _originals(model) as originals:
        for x, y in tqdm(points, desc="landscape", unit="point", disable=None):
            for matrix in model.matrices():
                _place(matrix, originals[matrix.name], (x, y), seed)
            rows.append((x, y, _finite(_mean_loss(model, batches), x, y)))
    return pd.DataFrame(rows, columns=["x", "y", "loss"])


def _check(model: "Model", radius: float, steps: int) -> None:
    if not 0 < radius < float("inf"):
        raise ConfigError(f"radius {radius}", allowed="a number above 0", fix="Correct the radius.")
    if steps < 3 or steps % 2 == 0:
        raise ConfigError(
            f"steps {steps}",
            allowed="an odd number of at least 3",
            fix="Correct the steps.",
        )
    if model.offload != "none":
        raise ModelError(
            f"a loss landscape with offload='{model.offload}'",
            allowed="offload='none': every point changes every block",
            fix="Load the model with offload='none', on a device that holds it twice.",
        )


@contextmanager
def _originals(model: "Model") -> Iterator[dict[str, torch.Tensor]]:
    """Yields copies of the prunable weights and puts them back in the end."""
    originals = {m.name: m.module.weight.detach().clone() for m in model.matrices()}
    try:
        yield originals
    finally:
        for matrix in model.matrices():
            matrix.module.weight.copy_(originals[matrix.name])


def _place(matrix: "Matrix", original: torch.Tensor, point: tuple[float, float], seed: int) -> None:
    """Moves a matrix to a point of the plane; where both coordinates are 0, to its own bits."""
    moved = original.float()
    for number, step in enumerate(point):
        if step:
            moved = moved + step * direction(
                original, seed_from("landscape", seed, matrix.name, number)
            )
    matrix.module.weight.copy_(moved)


def direction(weight: torch.Tensor, seed: int) -> torch.Tensor:
    """Returns noise whose rows have the norms of the rows of a weight, float32 [n_out, n_in]."""
    generator = torch.Generator(weight.device).manual_seed(seed)
    noise = torch.randn(
        weight.shape, generator=generator, device=weight.device, dtype=torch.float32
    )
    return noise * (weight.float().norm(dim=1) / noise.norm(dim=1)).unsqueeze(1)


def _mean_loss(model: "Model", batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    sizes = [n_samples(batch) for batch in batches]
    losses = [model.loss(batch).double().item() for batch in batches]
    return sum(n * loss for n, loss in zip(sizes, losses, strict=True)) / sum(sizes)


def _finite(loss: float, x: float, y: float) -> float:
    if not abs(loss) < float("inf"):
        raise PruningError(
            f"the loss at ({x:.3g}, {y:.3g}) is {loss}",
            allowed="finite losses",
            fix="Lower the radius, or load the model as float32 or bfloat16.",
        )
    return loss
