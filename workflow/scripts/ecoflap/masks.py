"""Masks of pruned weights, packed to a bit per weight."""

import numpy as np
import torch

from ecoflap.errors import ArtifactError


def pack_mask(mask: torch.Tensor) -> torch.Tensor:
    """Packs a boolean torch mask of any shape into bytes, eight weights a byte."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_mask(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Unpacks what `pack_mask` made.

    Args:
        packed: Bytes, uint8 [ceil(n / 8)].
        shape: Shape of the mask, n weights in all.

    Raises:
        ArtifactError: if the number of bytes does not fit the shape.
    """
    n = int(np.prod(shape))
    if packed.numel() != -(-n // 8):
        raise ArtifactError(
            f"a mask of {packed.numel()} bytes does not fit a weight of shape {shape}",
            allowed=f"{-(-n // 8)} bytes",
            fix="The mask belongs to another model: prune this model again.",
        )
    bits = np.unpackbits(packed.numpy(), count=n).astype(bool)
    return torch.from_numpy(bits).reshape(shape)
