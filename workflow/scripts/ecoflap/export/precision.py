"""The number format of a pruned model's checkpoint."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ecoflap.models.model import Model

SHORT = {"F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors calls them


@torch.no_grad()
def shorten(model: Model, dense: str | Path) -> None:
    """Gives weights of 32 bits the 16 bits of the dense checkpoint if that changes no weight.

    A model that was loaded as float32 and lost weights needs no more bits than it came with; one
    whose weights were updated does.

    Args:
        model: Changed in place.
        dense: The folder that it was loaded from.
    """
    kinds = set()
    for path in Path(dense).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    found = {kind for kind in kinds if kind.startswith(("F", "BF"))}
    short = SHORT.get(found.pop()) if len(found) == 1 else None
    module: Any = model.module
    tensors = [t for t in module.state_dict().values() if t.is_floating_point()]
    if short and all(torch.equal(t.to(short).to(t.dtype), t) for t in tensors):
        module.to(short)
