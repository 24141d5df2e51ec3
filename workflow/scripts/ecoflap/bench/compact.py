"""Exported models and their compact copies: bytes, and seconds until the weights are in memory."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

from ecoflap import compact, unpack

REPEATS = 5
NOTES = (
    "Bytes of the weights' files alone. Loading: from the disk's cache into memory of their own, "
    "median of five; compact: with its digest checked. Packing: once.",
)


def run(folders: Sequence[Path]) -> pd.DataFrame:
    """Packs folders into a temporary place and loads both forms.

    Args:
        folders: What `snakemake exports` or `Model.save` wrote.

    Returns:
        A row per folder.
    """
    return pd.DataFrame([_row(folder) for folder in folders])


def _row(folder: Path) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        files = compact.write(folder, Path(scratch, "compact"))
        packing = time.perf_counter() - start
        dense = sorted(folder.glob("*" + compact.WEIGHTS))
        sizes = [sum(file.stat().st_size for file in found) / 2**20 for found in (dense, files)]
        return {
            "model": "/".join(folder.parts[-4:]),
            "dense_mib": sizes[0],
            "compact_mib": sizes[1],
            "compact_to_dense": sizes[1] / sizes[0],
            "load_dense_seconds": _seconds(lambda: [_load_dense(file) for file in dense]),
            "load_compact_seconds": _seconds(lambda: [unpack.load(file) for file in files]),
            "pack_seconds": packing,
        }


def _load_dense(file: Path) -> dict:
    # Copied: otherwise the file is mapped, and read when a weight is first used.
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _seconds(function: Callable) -> float:
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
