"""Runs 2:4 models on the sparse tensor cores of GPUs that have them."""

import torch
from torch import nn

from ecoflap.errors import DeployError
from ecoflap.models.model import Model

CAPABILITY = (8, 0)  # of CUDA devices: Ampere, the first with sparse tensor cores
DTYPES = (torch.float16, torch.bfloat16)


def to_semi_structured(model: Model) -> Model:
    """Turns every prunable matrix of a 2:4 model into a semi-structured tensor of torch.

    The model is then for running only. Its matrices take 9/16 of their memory; whether they are
    faster depends on shapes, batch and GPU: `make bench-deploy` measures it.

    Args:
        model: A model whose prunable matrices all are 2:4, on a GPU, in 16 bits; changed in place.

    Returns:
        The same model.

    Raises:
        DeployError: if the device has no sparse tensor cores, the weights have another number
            format or wait elsewhere, a matrix is not 2:4, or torch cannot take its shape. Nothing
            has changed then, except for shapes that torch refuses.
    """
    _check_device(model.device)
    if model.offload != "none":
        raise DeployError(
            f"weights that wait elsewhere (offload='{model.offload}')",
            allowed="offload='none'",
            fix="Load the model without offload.",
        )
    matrices = list(model.matrices())
    for matrix in matrices:
        _check_weight(matrix.name, matrix.module.weight)
    for matrix in matrices:
        convert(matrix.name, matrix.module)
    return model


def convert(name: str, linear: nn.Linear) -> None:
    """Makes the 2:4 weight of a layer a semi-structured tensor.

    Args:
        name: Of the layer, for messages.
        linear: On a GPU; changed in place.

    Raises:
        DeployError: if torch cannot take the weight.
    """
    try:
        weight = torch.sparse.to_sparse_semi_structured(linear.weight.detach())
    except RuntimeError as error:
        raise DeployError(
            f"torch cannot make {name} {tuple(linear.weight.shape)} semi-structured ({error})",
            allowed="shapes that its kernels take: multiples of 64 always are",
            fix="Load the model again and leave it dense, or leave this list of blocks out.",
        ) from error
    linear.weight = nn.Parameter(weight, requires_grad=False)


def is_two_four(weight: torch.Tensor) -> bool:
    """Tells whether at most 2 of each 4 neighbours along the inputs are there.

    Args:
        weight: [n_out, n_in].
    """
    return weight.shape[1] % 4 == 0 and _fullest(weight) <= 2


def _fullest(weight: torch.Tensor) -> int:
    return int((weight.reshape(-1, 4) != 0).sum(dim=1).max())


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        seen = f"a model on the device '{device}'"
    elif torch.cuda.get_device_capability(device) < CAPABILITY:
        seen = f"{torch.cuda.get_device_name(device)}, which has no sparse tensor cores"
    else:
        return
    raise DeployError(
        seen,
        allowed=f"CUDA devices of compute capability {'.'.join(map(str, CAPABILITY))} and above",
        fix="Load the model with device='cuda' on such a GPU, or run it dense: it is the same "
        "model.",
    )


def _check_weight(name: str, weight: torch.Tensor) -> None:
    if weight.dtype not in DTYPES:
        raise DeployError(
            f"{name} is {str(weight.dtype).removeprefix('torch.')}",
            allowed="float16, bfloat16",
            fix="Load the model with dtype='bfloat16' or 'float16'.",
        )
    if not is_two_four(weight):
        seen = (
            f"{name} has rows of {weight.shape[1]} weights"
            if weight.shape[1] % 4
            else f"{name} keeps {_fullest(weight)} of 4 neighbours somewhere "
            f"({(weight != 0).float().mean():.0%} of its weights)"
        )
        raise DeployError(
            seen,
            allowed="at most 2 of each 4 along the inputs",
            fix="Prune with pattern='2:4'.",
        )
