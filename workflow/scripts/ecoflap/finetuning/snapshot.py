"""The model as it was before a run: what tells it from others, and the way back after an error."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ecoflap.finetuning import lora

if TYPE_CHECKING:
    from ecoflap.models.model import Model


def digest(model: "Model", masks: Mapping[str, torch.Tensor] | None = None) -> str:
    """Returns 16 hexadecimal digits that change with any weight of a model, and with its masks."""
    found = hashlib.sha256()
    # Sorted: an update that was taken off leaves the weight behind the bias.
    for name, tensor in sorted({**dict(model.module.named_parameters()), **(masks or {})}.items()):
        found.update(name.encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy())
    return found.hexdigest()[:16]


@contextmanager
def as_found(model: "Model", trained: Iterable[str]) -> Iterator[None]:
    """Puts a model back into eval mode afterwards; after an error also its weights.

    Args:
        model: The model.
        trained: Names of the parameters that change in place; a copy of them waits on the host.
    """
    parameters = dict(model.module.named_parameters())
    wanted = {name: parameter.requires_grad for name, parameter in parameters.items()}
    before = {name: parameters[name].detach().to("cpu", copy=True) for name in trained}
    try:
        yield
    except BaseException:
        lora.drop(model)
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)
        raise
    finally:
        model.module.eval()
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(wanted[name])
            parameter.grad = None
