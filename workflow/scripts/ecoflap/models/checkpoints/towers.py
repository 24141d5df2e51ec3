"""Puts the vision tower of one model into another."""

import torch

from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.casting import cast
from ecoflap.models.model import Model


def put_vision_tower(model: Model, other: Model) -> None:
    """Copies all weights of a vision tower, matched by name.

    The paper measures retrieval so: the matching checkpoint of BLIP-2 with the vision tower of
    the generation model that was pruned.

    Args:
        model: Gets the tower; its weights are changed in place.
        other: Has it.

    Raises:
        ModelError: if one has no vision tower, names or shapes differ, or a number is not finite in
            the other's format.
    """
    mine, theirs = (_tower(one) for one in (model, other))
    odd = sorted(set(mine).symmetric_difference(theirs))
    odd += [name for name in mine if name in theirs and mine[name].shape != theirs[name].shape]
    if odd or not mine:
        raise ModelError(
            f"the vision towers of {type(model.module).__name__} and "
            f"{type(other.module).__name__} differ: "
            + (f"{odd[0]} ({len(odd)} in all)" if odd else "there is none"),
            allowed="vision towers with the same names and shapes",
            fix="Correct vision_from.",
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(cast(name, theirs[name], tensor.dtype))


def _tower(model: Model) -> dict[str, torch.Tensor]:
    """Returns the weights of the vision tower by their names in the model."""
    roots = {_root(block.name, model) for block in model.blocks if block.tower == "vision"}
    return {
        name: tensor
        for name, tensor in model.module.state_dict().items()
        if any(name.startswith(f"{root}.") for root in roots)
    }


def _root(block: str, model: Model) -> str:
    """Returns the part of a block's name up to the first that speaks of vision."""
    parts = block.split(".")
    for length, part in enumerate(parts, start=1):
        if any(word in part.lower() for word in model.vision_names):
            return ".".join(parts[:length])
    return parts[0]
