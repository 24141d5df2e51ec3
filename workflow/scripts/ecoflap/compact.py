"""Packs the weights of a checkpoint: a bit per weight, 1 where a value is, and those values.

A weight is there if any of its bits is set, so -0.0 and every NaN survive. `ecoflap.unpack` is the
way back; it stands alone and is copied beside the packed files.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ecoflap import artifacts, unpack
from ecoflap.errors import ArtifactError, message

KIND = "compact"
WEIGHTS = ".safetensors"
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes per weight: its bits as a number


def packed_bytes(kept: int, n: int, size: int) -> int:
    """Returns the bytes of a packed tensor; one that would not get smaller stays as it is.

    Args:
        kept: Weights that are there.
        n: Weights of the tensor.
        size: Bytes of a weight.
    """
    return min(n * size, -(-n // 8) + kept * size)


def packed(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Packs a tensor.

    Args:
        tensor: Of any shape, n weights.

    Returns:
        The values that are there [kept], and bits uint8 [ceil(n / 8)]; None if that is no smaller,
        and for what are no floating-point numbers of at least 16 bits.
    """
    size = tensor.element_size()
    if not tensor.is_floating_point() or size not in BITS:
        return None
    there = tensor.contiguous().view(BITS[size]) != 0
    mask = artifacts.pack_mask(there)
    whole = tensor.numel() * size
    if packed_bytes(int(there.sum()), tensor.numel(), size) == whole:
        return None
    return tensor[there], mask


def pack(source: str | Path, target: str | Path, head: Mapping) -> None:
    """Packs one safetensors file.

    Args:
        source: The dense file.
        target: The compact file to write.
        head: Provenance header of the kind ``compact``.

    Raises:
        ArtifactError: if the dense file cannot be read; nothing is written then.
    """
    stored, shapes = {}, {}
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                parts = packed(tensor)
                stored[name] = tensor if parts is None else parts[0]
                if parts is not None:
                    stored[name + unpack.MASK], shapes[name] = parts[1], list(tensor.shape)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            message(
                f"cannot read {source} ({error})",
                "a whole safetensors file",
                "Export the model again.",
            )
        ) from error
    head = {**head, "shapes": shapes, "metadata": metadata}
    artifacts.write_tensors(target, stored, head, name=Path(target).name)


def write(folder: str | Path, target: str | Path, head: Mapping | None = None) -> list[Path]:
    """Copies a checkpoint folder, its weights packed and the loader beside them.

    Args:
        folder: What `Model.save` wrote, or any folder with safetensors files.
        target: The folder to write.
        head: Provenance header; one without a rule by default.

    Returns:
        The compact files.

    Raises:
        ArtifactError: if there is nothing to pack, or the target holds something already.
    """
    folder, target = Path(folder), Path(target)
    dense = sorted(folder.glob("*" + WEIGHTS))
    if not dense:
        seen = f"'{folder}' holds no {WEIGHTS} file"
        raise ArtifactError(message(seen, "a saved checkpoint", "Export the model first."))
    if target.is_dir() and any(target.iterdir()):
        seen = f"'{target}' is not empty"
        raise ArtifactError(message(seen, "a folder that is new or empty", "Name another."))
    head = head or artifacts.header(KIND, rule="ecoflap.compact.write", code="", config={})
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for file in dense:
        written.append(target / file.name.replace(WEIGHTS, unpack.SUFFIX))
        pack(file, written[-1], head)
    # The manifest is of the dense folder; Snakemake keeps a file of its own there.
    left = shutil.ignore_patterns("*" + WEIGHTS, "manifest.json", ".snakemake_timestamp")
    shutil.copytree(folder, target, ignore=left, dirs_exist_ok=True)
    shutil.copy(unpack.__file__, target / "unpack.py")
    return written
