"""Where a killed run goes on: weights, optimizer and curve of the last stop, in one file."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from ecoflap import artifacts
from ecoflap.errors import ArtifactError

KIND = "fine-tuning checkpoint"
CURVE, WEIGHT = "curve", "weight."


def save(
    path: Path,
    head: Mapping,
    *,
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    curve: torch.Tensor,
    spent: Mapping | None = None,
) -> None:
    """Writes the state of a run, replacing that of its last stop atomically.

    Args:
        path: The safetensors file.
        head: Header of what is being made; it tells later whether the run is the same.
        trained: What is trained, by name.
        optimizer: Its AdamW.
        curve: What was measured at each step so far, float64 [steps, n].
        spent: What the run cost so far (`Cost.so_far`); None if nobody measures it.
    """
    tensors = {CURVE: curve}
    for name, parameter in trained.items():
        tensors[WEIGHT + name] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    artifacts.write_tensors(path, tensors, {**head, "kind": KIND, "spent": spent})


def load(
    path: Path,
    head: Mapping,
    *,
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> tuple[torch.Tensor, Mapping | None]:
    """Puts the state of a run back.

    Returns:
        Its curve, one row for each step done, and what it cost so far, if that was measured.

    Raises:
        ArtifactError: if the file is damaged or no checkpoint, or of a run with another header. It
            is left as it is.
    """
    try:
        tensors, then = artifacts.read_tensors(path, KIND)
    except ArtifactError as error:
        why = str(error).partition(". Allowed")[0]
        raise ArtifactError(
            f"no checkpoint to go on from: {why}",
            allowed="a file that fine-tuning wrote, or none",
            fix="Name another file; delete this one if it is a checkpoint, to begin anew.",
        ) from error
    found: dict[tuple[str, str], str] = {}
    for key, difference in _differences(then, head):
        found.setdefault((key.rpartition(".")[2], difference), key)  # once, if in two places
    if found:
        listed = ", ".join(f"{key} ({difference})" for (_, difference), key in found.items())
        raise ArtifactError(
            f"{path} was written by a run with another {listed}",
            allowed="going on with the same configuration, code and inputs",
            fix="Put that back, or delete the file to begin anew.",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[WEIGHT + name])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            # All on the weight's device, the step too: that is where a fused AdamW keeps it.
            state = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in keys}
            if state:
                optimizer.state[parameter] = state
    return tensors[CURVE], then.get("spent")


def _differences(then: Mapping, now: Mapping, place: str = "") -> Iterator[tuple[str, str]]:
    """Yields where two headers differ, and what each says."""
    ignored = ("file", "digest", "kind", "versions", "device", "spent") if not place else ()
    for key in sorted({*then, *now} - set(ignored)):
        one, other = then.get(key), now.get(key)
        name = f"{place}{key}"
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            one, other = dict(enumerate(one)), dict(enumerate(other))
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{name}.")
        elif one != other:
            yield name, f"then {one!r}, now {other!r}"
