"""Gradients of the prunable matrices, streamed: each is reduced to a number and freed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap.blocks import checkpointed
from ecoflap.errors import PruningError, message

if TYPE_CHECKING:
    from ecoflap.models.base import Model

Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
        reduce: Turns weight and gradient [n_out, n_in] into a scalar tensor, in float32.
        label: Shown by the progress bar.

    Returns:
        Mean by matrix name.

    Raises:
        PruningError: if the loss is not finite.
    """
    names = {matrix.module.weight: matrix.name for matrix in model.matrices()}
    totals = dict.fromkeys(names.values(), 0.0)
    wanted = {parameter: parameter.requires_grad for parameter in model.module.parameters()}

    def take(weight: torch.Tensor) -> None:
        totals[names[weight]] += reduce(weight.detach(), weight.grad).item()
        weight.grad = None

    handles = []
    try:
        for parameter in wanted:
            parameter.requires_grad_(parameter in names)
        handles = [weight.register_post_accumulate_grad_hook(take) for weight in names]
        with checkpointed(model.block_modules()), torch.enable_grad():
            for batch in tqdm(batches, desc=label, unit="batch", disable=None):
                loss = model.loss(batch)
                if not torch.isfinite(loss):
                    raise PruningError(
                        message(
                            f"the loss of a calibration batch is {loss.item()}",
                            "finite losses",
                            "Load the model as float32 or bfloat16.",
                        )
                    )
                loss.backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter, required in wanted.items():
            parameter.requires_grad_(required)
            parameter.grad = None
    return {name: total / len(batches) for name, total in totals.items()}
