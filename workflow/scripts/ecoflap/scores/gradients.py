"""Gradients of the prunable matrices, streamed: each is reduced to a number and freed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.blocks import checkpointed
from ecoflap.errors import PruningError, message

if TYPE_CHECKING:
    from ecoflap.models.base import Model

Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LARGEST_SCALE, SMALLEST_SCALE = 2.0**15, 2.0**-15


def mean_over_batches(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    reduce: Reduce,
    label: str,
) -> dict[str, float]:
    """Returns the mean over batches of ``reduce(weight, gradient)`` for each matrix.

    Only one gradient is alive at a time, and blocks are computed again in the backward, so the
    peak is about the weights, one block's activations and the largest gradient.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        reduce: Turns weight and gradient (float32) [n_out, n_in] into a scalar tensor.
        label: Shown by the progress bar.

    Returns:
        Mean by matrix name.

    Raises:
        PruningError: if the loss is not finite.
    """
    totals = {matrix.name: 0.0 for matrix in model.matrices()}
    for values in over_batches(model, batches, reduce, label):
        for name, value in values.items():
            totals[name] += value.item()
    return {name: total / len(batches) for name, total in totals.items()}


def over_batches(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    reduce: Reduce,
    label: str,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields for each batch ``reduce(weight, gradient)`` by matrix name, as `mean_over_batches`.

    A matrix whose gradient never came is absent.
    """
    names = {matrix.module.weight: matrix.name for matrix in model.matrices()}
    with _only(model, names), checkpointed(model.block_modules()):
        for batch in tqdm(batches, desc=label, unit="batch", disable=None):
            with torch.enable_grad():
                values = _one_batch(model, batch, names, reduce)
            yield values


@contextmanager
def _only(model: "Model", wanted: Mapping[torch.nn.Parameter, str]) -> Iterator[None]:
    """Asks for the gradients of some parameters only."""
    before = {parameter: parameter.requires_grad for parameter in model.module.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(parameter in wanted)
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)
            parameter.grad = None


def _one_batch(
    model: "Model",
    batch: Mapping[str, torch.Tensor],
    names: Mapping[torch.nn.Parameter, str],
    reduce: Reduce,
) -> dict[str, torch.Tensor]:
    """Reduces the gradients of one batch; in float16 those of a scaled loss.

    Small gradients vanish in float16. The loss is multiplied by the largest power of two, at most
    2^15, for which no gradient overflows, and the gradients are divided by it in float32.

    Args:
        model: The model, with gradients for the wanted weights only.
        batch: One batch.
        names: The wanted weights.
        reduce: What to make of each gradient.

    Returns:
        The reduced value by matrix name.
    """
    scale = LARGEST_SCALE if torch.float16 in {weight.dtype for weight in names} else 1.0
    values: dict[str, torch.Tensor] = {}
    overflown: list[torch.nn.Parameter] = []

    def take(weight: torch.Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        if not torch.isfinite(gradient).all():
            overflown.append(weight)
        else:
            values[names[weight]] = reduce(weight.detach(), gradient.float() / scale)

    handles = [weight.register_post_accumulate_grad_hook(take) for weight in names]
    try:
        while True:
            loss = model.loss(batch)
            if not torch.isfinite(loss):
                raise _not_finite(f"the loss of a calibration batch is {loss.item()}")
            loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
            (loss * scale).backward()
            if not overflown:
                return values
            weight = overflown.pop()
            if weight.dtype != torch.float16 or scale <= SMALLEST_SCALE:
                raise _not_finite(f"the gradient of {names[weight]} is not finite")
            scale /= 2
            overflown.clear()
            values.clear()
    finally:
        for handle in handles:
            handle.remove()


def _not_finite(seen: str) -> PruningError:
    return PruningError(message(seen, "finite numbers", "Load the model as float32 or bfloat16."))
