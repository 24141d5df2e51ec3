"""Puts towers of one model into another, as the paper evaluates what it pruned in another model."""

import math
import os.path
from collections.abc import Collection

import torch
from torch.nn import functional

from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.casting import cast
from ecoflap.models.model import Model

# A norm behind the tower, which LAVIS (its ln_vision) counts to what reads the tower.
NOT_OF_THE_TOWER = "post_layernorm."
POSITIONS = "position_embedding"


def put_towers(model: Model, other: Model, towers: Collection[str] = ("vision",)) -> None:
    """Copies the weights of towers, matched by name.

    The paper measures retrieval with the matching checkpoint of BLIP-2, and NoCaps with the one
    that was fine-tuned on COCO, each with the towers of the generation model that was pruned.
    Where pictures are larger, position embeddings are interpolated (bicubic, as in LAVIS). The
    norm behind a vision tower stays.

    Args:
        model: Gets the towers; its weights are changed in place.
        other: Has them.
        towers: ``vision``, ``language``.

    Raises:
        ModelError: if one has no such tower, names or shapes differ, or a number is not finite in
            the other's format.
    """
    for name in towers:
        mine, theirs = (_tower(one, name) for one in (model, other))
        theirs = {key: _resized(key, tensor, mine.get(key)) for key, tensor in theirs.items()}
        odd = sorted(set(mine).symmetric_difference(theirs))
        odd += [key for key in mine if key in theirs and mine[key].shape != theirs[key].shape]
        if odd or not mine:
            raise ModelError(
                f"the {name} towers of {type(model.module).__name__} and "
                f"{type(other.module).__name__} differ: "
                + (f"{odd[0]} ({len(odd)} in all)" if odd else "there is none"),
                allowed=f"{name} towers with the same names and shapes",
                fix="Correct towers_from.",
            )
        with torch.no_grad():
            for key, tensor in mine.items():
                tensor.copy_(cast(key, theirs[key], tensor.dtype))


def _resized(name: str, tensor: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    """Returns position embeddings [..., 1 + n, width] for another number of patches."""
    if wanted is None or POSITIONS not in name or wanted.shape == tensor.shape:
        return tensor
    sides = [math.isqrt(each.shape[-2] - 1) for each in (tensor, wanted)]
    if any(s * s + 1 != t.shape[-2] for s, t in zip(sides, (tensor, wanted), strict=True)):
        return tensor
    first, patches = tensor[..., :1, :], tensor[..., 1:, :].float()
    old, new = sides
    grid = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(*tensor.shape[:-2], new * new, -1)
    return torch.cat([first, patches.to(tensor.dtype)], dim=-2)


def _tower(model: Model, tower: str) -> dict[str, torch.Tensor]:
    """Returns the weights of a tower by their names in the model."""
    blocks = [block.name for block in model.blocks if block.tower == tower]
    if tower == "vision":
        roots = {_root(block, model) for block in blocks}
    else:  # the smallest part that holds all lists of blocks
        lists = [block.split(".")[:-2] for block in blocks]
        roots = {".".join(os.path.commonprefix(lists))} if lists else set()
    return {
        name: tensor
        for name, tensor in model.module.state_dict().items()
        if any(name.startswith(f"{root}.") for root in roots) and NOT_OF_THE_TOWER not in name
    }


def _root(block: str, model: Model) -> str:
    """Returns the part of a block's name up to the first that speaks of vision."""
    parts = block.split(".")
    for length, part in enumerate(parts, start=1):
        if any(word in part.lower() for word in model.vision_names):
            return ".".join(parts[:length])
    return parts[0]
