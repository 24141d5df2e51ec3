"""Where the activations of calibration samples wait between two blocks."""

import tempfile
from functools import partial
from pathlib import Path

import torch

from ecoflap.engine.replay import Places
from ecoflap.models.model import Model


def places(model: Model) -> Places:
    """Returns where a model's activations wait: on its device, the host, or in mapped files.

    They follow the weights: with ``offload="disk"`` neither the device nor the host has to hold
    the activations of all samples.

    Args:
        model: What `ecoflap.load` returned.
    """
    put = {"none": torch.Tensor.detach, "cpu": partial(torch.Tensor.to, device="cpu")}
    return Places(model.device, put.get(model.offload, _mapped))


def _mapped(tensor: torch.Tensor) -> torch.Tensor:
    """Copies a tensor to a file in the temporary folder and maps it into memory."""
    with tempfile.TemporaryDirectory(prefix="ecoflap-") as folder:
        path = Path(folder, "activation")
        copy = torch.from_file(
            str(path), shared=True, size=max(1, tensor.numel()), dtype=tensor.dtype
        )
        # The mapping outlives the file's name, so that nothing is left after a kill.
    copy = copy[: tensor.numel()].reshape(tensor.shape)
    return copy.copy_(tensor.detach())
