"""Peak resident memory, each case in a process of its own."""

import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pandas as pd
import torch
from transformers import LlamaConfig

import ecoflap
from bench import checkpoint, literal, models
from ecoflap.measure import peak_mb, resident_mb
from ecoflap.models.model import Model
from ecoflap.scores import matrix_table
from ecoflap_pipeline.code import export_library

log = logging.getLogger(__name__)
SPARSITY = "0.5"
RATIO_GOAL = 1.25  # gradnorm's peak over a forward's
DISK_GOAL_MB = 2.5e9 / 2**20
# 14 blocks of 113 MB in float32; 64 blocks of 103 MB in bfloat16.
HOST = LlamaConfig(
    hidden_size=1536,
    intermediate_size=4096,
    num_hidden_layers=14,
    num_attention_heads=12,
    num_key_value_heads=12,
    vocab_size=4096,
)
DISK = LlamaConfig(
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=64,
    num_attention_heads=16,
    num_key_value_heads=16,
    vocab_size=4096,
    dtype="bfloat16",
)
SMALL = LlamaConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    vocab_size=96,
    dtype="bfloat16",
)
COLUMNS = [
    "case",
    "weights_mib",
    "peak_mib",
    "imports_mib",
    "peak_without_imports_mib",
    "times_forward",
    "goal",
    "seconds",
    "measured",
]
NOTES = (
    "Peak: largest resident set of the case's own process (VmHWM). Imports: resident set when all "
    "libraries are loaded and no model is. Times forward: of the peaks with imports.",
    "Goals: gradnorm at most 1.25 times the forward's peak; offload-disk under 2.5 GB (2,384 MiB).",
)


def _forward(model: Model, batches: list[dict]) -> None:
    with torch.no_grad():
        for batch in batches:
            model.loss(batch)


def _gradnorm(model: Model, batches: list[dict]) -> None:
    ecoflap.score(model, batches, estimator="gradnorm")


def _plain_first(model: Model, batches: list[dict]) -> None:
    weights = {matrix.name: matrix.module.weight for matrix in model.matrices()}
    model.module.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    literal.first(model.loss, weights, batches)


def _prune(model: Model, batches: list[dict]) -> None:
    plan = ecoflap.allocate(matrix_table(model), sparsity=SPARSITY, method="uniform")
    ecoflap.prune(model, batches, plan, criterion="wanda")


IN_MEMORY = {"forward": _forward, "gradnorm": _gradnorm, "first-plain": _plain_first}
CASES = (*IN_MEMORY, "offload-disk")


def measure_case(case: str, *, folder: Path | None, small: bool) -> dict[str, float]:
    """Runs one case in this process.

    Args:
        case: One of `CASES`.
        folder: Of ``offload-disk``: holds the checkpoint ``dense``; ``pruned`` is written there.
        small: Uses a tiny model for a case that makes its own.

    Returns:
        imports_mib, weights_mib, peak_mib and seconds.
    """
    imports = resident_mb()
    start = time.perf_counter()
    if case == "offload-disk":
        folder = cast(Path, folder)
        weights = checkpoint.size_mb(folder / "dense")
        _from_disk(folder)
    else:
        model = models.build_llama(SMALL if small else HOST, torch.float32)
        weights = sum(p.numel() * p.element_size() for p in model.module.parameters()) / 2**20
        batches = models.token_windows(model.module.config, batches=2, batch_size=4, length=64)
        start = time.perf_counter()
        IN_MEMORY[case](model, batches)
    seconds = time.perf_counter() - start
    return {
        "imports_mib": imports,
        "weights_mib": weights,
        "peak_mib": peak_mb(),
        "seconds": seconds,
    }


def _from_disk(folder: Path) -> None:
    model = ecoflap.load(folder / "dense", dtype="bfloat16", device="cpu", offload="disk")
    batches = models.token_windows(model.module.config, batches=2, batch_size=2, length=32)
    _prune(model, batches)
    model.save(folder / "pruned")


def run(threads: int, scratch: Path | None) -> pd.DataFrame:
    """Runs every case; one row each.

    Args:
        threads: CPU threads of each case.
        scratch: Folder for the checkpoints of ``offload-disk``.
    """
    export_library()
    rows = [_row(case, _child(case, threads), "2 batches of 4 x 64 tokens") for case in IN_MEMORY]
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        checkpoint.write(folder / "dense", DISK)
        found = _child("offload-disk", threads, "--folder", name)
        checked = checkpoint.check(folder / "dense", folder / "pruned", float(SPARSITY))
    measured = f"Wanda, 2 batches of 2 x 32 tokens; {checked}"
    rows.append(_row("offload-disk", found, measured))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["times_forward"] = frame["peak_mib"] / frame["peak_mib"][0]
    frame.loc[frame["case"] == "offload-disk", "times_forward"] = math.nan  # another model
    return frame


def _child(case: str, threads: int, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench", "memory-case", case]
    command += ["--threads", str(threads), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def _row(case: str, found: dict[str, float], measured: str) -> dict:
    goals: dict[str, Callable[[], str]] = {
        "gradnorm": lambda: f"at most {RATIO_GOAL} times forward",
        "offload-disk": lambda: f"under {DISK_GOAL_MB:,.0f} MiB",
    }
    log.info("%s: peak %.0f MiB, %.1f s", case, found["peak_mib"], found["seconds"])
    return {
        **found,
        "case": case,
        "peak_without_imports_mib": found["peak_mib"] - found["imports_mib"],
        "goal": goals[case]() if case in goals else "",
        "measured": measured,
    }
