"""Numbers in another format, none of which becomes infinite without a word."""

import torch

from ecoflap.errors import ModelError


def cast(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a weight in a number format.

    Args:
        name: Of the weight, for messages.
        tensor: Any shape; what is not floating-point stays as it is.
        dtype: The format.

    Raises:
        ModelError: if a number is not finite in it, as those above 65,504 in float16.
    """
    if not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    found = tensor.to(dtype)
    if not found.isfinite().all():
        raise ModelError(
            f"{name} is not finite in {str(dtype).removeprefix('torch.')}",
            allowed=f"numbers up to {torch.finfo(dtype).max:,.0f}"
            if dtype == torch.float16
            else "finite numbers",
            fix="Load the model as float32 or bfloat16.",
        )
    return found
