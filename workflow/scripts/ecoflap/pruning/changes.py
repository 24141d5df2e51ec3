"""What pruning changed: stored, and applied to the dense model again."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ecoflap import artifacts, models
from ecoflap.errors import ArtifactError
from ecoflap.masks import pack_mask, unpack_mask
from ecoflap.models.checkpoints.casting import cast
from ecoflap.models.model import Model

STATE = "state."  # begins the names of stored weights that are no prunable matrices


def save_changes(
    model: Model,
    path: str | Path,
    head: Mapping,
    *,
    updates_weights: bool,
    further: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Stores what pruning changed: packed masks, or whole tensors if weights were updated.

    Args:
        model: A pruned model.
        path: The safetensors file to write.
        head: Provenance header; must hold ``dense``, the hash of the dense checkpoint.
        updates_weights: Whether weights that stayed have new values.
        further: Other changed weights by their names in the model, biases for example.
    """
    if updates_weights:
        changes = {m.name: m.module.weight.detach().cpu() for m in model.resident_matrices()}
    else:
        changes = {f"{name}.mask": packed for name, packed in model.masks.items()}
    changes |= {STATE + name: tensor.detach().cpu() for name, tensor in (further or {}).items()}
    artifacts.write_tensors(path, changes, head)


def load_changed(
    folder: str | Path,
    changes: str | Path | None,
    *,
    device: str,
    donor: str | Path | None = None,
    towers: Collection[str] | None = None,
    check: Callable[[Model], None] = lambda dense: None,
    **loading: Any,
) -> Model:
    """Loads a dense checkpoint whose files are checked, and applies what pruning changed.

    Args:
        folder: The dense checkpoint with its manifest.
        changes: What `save_changes` stored; None for the dense model.
        device: As in `ecoflap.load`, like all in ``loading``.
        donor: The checkpoint that was pruned, if it is another one.
        towers: The towers that come from there.
        check: Called with the dense model; may refuse it.
        loading: Further arguments of `ecoflap.load`.

    Raises:
        ArtifactError: if a file has changed, or the changes belong to another checkpoint.
    """
    model = models.load(artifacts.checked(folder), device=device, **loading)
    check(model)
    if changes:
        dense = artifacts.file_hash(donor or folder)
        apply_changes(model, changes, dense, towers=towers)
    return model


def apply_changes(
    model: Model, path: str | Path, dense: str, *, towers: Collection[str] | None = None
) -> None:
    """Applies what `save_changes` stored to a freshly loaded dense model.

    Args:
        model: The dense model.
        path: The stored changes.
        dense: Hash of the manifest of the dense checkpoint that was pruned.
        towers: Apply those of these towers only; all by default.

    Raises:
        ArtifactError: if the changes belong to another checkpoint or do not fit.
        ModelError: if a changed weight is not finite in the number format of the model.
    """
    changes, head = artifacts.read_tensors(path, "pruned")
    if head["dense"] != dense:
        raise ArtifactError(
            f"{path} was made from another checkpoint ({head['dense'][:12]})",
            allowed=f"changes of the checkpoint {dense[:12]}",
            fix="Prune this model again.",
        )
    for matrix in model.matrices():
        if towers is not None and matrix.tower not in towers:
            continue
        weight = matrix.module.weight
        with torch.no_grad():
            if f"{matrix.name}.mask" in changes:
                packed = changes.pop(f"{matrix.name}.mask")
                mask = unpack_mask(packed, tuple(weight.shape))
                weight.masked_fill_(mask.to(weight.device), 0)
                model.masks[matrix.name] = packed
            elif matrix.name in changes and changes[matrix.name].shape == weight.shape:
                weight.copy_(cast(matrix.name, changes.pop(matrix.name), weight.dtype))
                model.masks[matrix.name] = pack_mask(weight == 0)
            else:
                raise ArtifactError(
                    f"{path} has nothing that fits {matrix.name}",
                    allowed="a mask or a tensor for every prunable matrix",
                    fix="Prune this model again.",
                )
    state = model.module.state_dict()
    for name, tensor in changes.items() if towers is None else ():
        own = state.get(name.removeprefix(STATE))
        if own is None or own.shape != tensor.shape:
            raise ArtifactError(
                f"{path} has a weight {name} that fits none of the model",
                allowed="the names and shapes of the model",
                fix="Prune this model again.",
            )
        own.copy_(cast(name, tensor, own.dtype))
