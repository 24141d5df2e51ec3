"""Pruning passes beside llm-compressor's and the literal ones, each in a process of its own.

All run with the Python of `make setup-llm-compressor`: one torch, one transformers, the same dense
model and the same samples.
"""

# Another environment has llmcompressor.
# pyright: reportMissingImports=false

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pandas as pd
import torch

import ecoflap
from bench import literal, models
from ecoflap.data.builtin import wikitext_2
from ecoflap.measure import peak_mb, resident_mb
from ecoflap.models.adapters.causal_lm import Adapter
from ecoflap.scores import matrix_table
from ecoflap_pipeline.code import export_library

log = logging.getLogger(__name__)
SPARSITY = 0.5
SAMPLES, WINDOW, TEST_WINDOWS = 8, 256, 32
THEIRS = "llm-compressor "
COLUMNS = [
    "pass",
    "seconds",
    "seconds_with_a_busy_core",
    "peak_mib",
    "before_mib",
    "perplexity",
    "removed",
    "times_faster",
    "times_faster_with_a_busy_core",
    "peak_to_theirs",
    "goal",
]
NOTES = (
    "SmolLM2-135M in float32 at sparsity 0.5, 8 windows of 256 tokens of WikiText-2's validation "
    "text; perplexity on the first 32 windows of the test text; removed: share of the zeros in "
    "the matrices of the blocks.",
    "Seconds: of the pass, without imports and loading. A busy core: another process computes all "
    "the while.",
    "Peak: largest resident set of the process until the pass ends (VmHWM); before: its resident "
    "set when libraries and model are loaded.",
    "Times faster and peak to theirs: beside llm-compressor's Wanda for Wanda, its SparseGPT for "
    "the others. llm-compressor runs once before, so that its bytecode is there.",
)


def _ours(criterion: str) -> Callable[[Adapter, torch.Tensor], None]:
    def prune(model: Adapter, windows: torch.Tensor) -> None:
        plan = ecoflap.allocate(matrix_table(model), sparsity=str(SPARSITY), method="uniform")
        batch = {"input_ids": windows, "labels": windows.clone()}
        ecoflap.prune(model, [batch], plan, criterion=criterion)

    return prune


def _literal(criterion: type) -> Callable[[Adapter, torch.Tensor], None]:
    def prune(model: Adapter, windows: torch.Tensor) -> None:
        samples = [{"input_ids": row[None], "labels": row[None]} for row in windows]
        towers = models.towers(model)
        literal.prune(towers, model.loss, samples, criterion=criterion, sparsity=SPARSITY)

    return prune


def _theirs(modifier: str) -> Callable[[Adapter, torch.Tensor], None]:
    def prune(model: Adapter, windows: torch.Tensor) -> None:
        import datasets
        import llmcompressor
        from llmcompressor.modifiers import pruning

        rows = windows.tolist()
        samples = {"input_ids": rows, "attention_mask": torch.ones_like(windows).tolist()}
        recipe = getattr(pruning, modifier)(sparsity=SPARSITY, ignore=["re:.*lm_head"])
        llmcompressor.oneshot(
            model=model.module,
            dataset=datasets.Dataset.from_dict(samples),
            recipe=recipe,
            num_calibration_samples=len(rows),
            max_seq_length=windows.shape[1],
        )

    return prune


PASSES: dict[str, Callable[[Adapter, torch.Tensor], None]] = {
    "wanda": _ours("wanda"),
    "sparsegpt": _ours("sparsegpt"),
    "admm": _ours("admm"),
    f"{THEIRS}wanda": _theirs("WandaPruningModifier"),
    f"{THEIRS}sparsegpt": _theirs("SparseGPTModifier"),
    "literal wanda": _literal(literal.Wanda),
    "literal sparsegpt": _literal(literal.SparseGPT),
}
# What each of ours is set beside, and how much faster it shall be.
BESIDE = {"wanda": ("wanda", 1), "sparsegpt": ("sparsegpt", 2), "admm": ("sparsegpt", 2)}


def measure_case(name: str, *, folder: Path, data: Path) -> dict[str, float]:
    """Runs one pass in this process.

    Args:
        name: One of `PASSES`.
        folder: The dense model.
        data: Holds ``valid.txt`` and ``test.txt`` of WikiText-2.

    Returns:
        seconds, before_mib, peak_mib, perplexity and removed.
    """
    if name.startswith(THEIRS):
        import llmcompressor.modifiers.pruning  # noqa: F401
    model = cast(Adapter, ecoflap.load(folder, dtype="float32", device="cpu"))
    windows = {
        split: model.windows(wikitext_2.load(split=split, folder=str(data))[0]["text"], WINDOW)
        for split in ("validation", "test")
    }
    before = resident_mb()
    start = time.perf_counter()
    PASSES[name](model, windows["validation"][:SAMPLES])
    seconds, peak = time.perf_counter() - start, peak_mb()
    test = windows["test"][:TEST_WINDOWS].split(4)
    losses = torch.cat([model.negative_log_likelihood(part) for part in test])
    weights = [matrix.module.weight for matrix in model.matrices()]
    return {
        "seconds": seconds,
        "before_mib": before,
        "peak_mib": peak,
        "perplexity": (losses.sum() / (len(losses) * (WINDOW - 1))).exp().item(),
        "removed": sum((w == 0).sum().item() for w in weights) / sum(w.numel() for w in weights),
    }


def run(threads: int, folder: Path, data: Path) -> pd.DataFrame:
    """Runs every pass alone and beside a busy core; one row each.

    Args:
        threads: CPU threads of each pass.
        folder: The dense model.
        data: As in `measure_case`.
    """
    export_library()
    _child(f"{THEIRS}wanda", threads, folder, data)
    rows = []
    for name in PASSES:
        found = _child(name, threads, folder, data)
        with _busy_core():
            beside = _child(name, threads, folder, data)
        found |= {"pass": name, "seconds_with_a_busy_core": beside["seconds"]}
        log.info("%s: %.1f s, busy %.1f s", name, found["seconds"], beside["seconds"])
        rows.append(found)
    return compared(pd.DataFrame(rows).reindex(columns=COLUMNS))


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Sets our passes beside llm-compressor's.

    Args:
        frame: The rows of `run`, whose last four columns are filled.
    """
    frame = frame.set_index("pass").astype({"goal": object})
    for name, (other, faster) in BESIDE.items():
        theirs = frame.loc[THEIRS + other]
        for column in ("seconds", "seconds_with_a_busy_core"):
            ratio = theirs[column] / frame.loc[name, column]
            frame.loc[name, column.replace("seconds", "times_faster")] = ratio
        frame.loc[name, "peak_to_theirs"] = frame.loc[name, "peak_mib"] / theirs["peak_mib"]
        frame.loc[name, "goal"] = f"at least {faster} times faster, at most their peak"
    return frame.reset_index().fillna({"goal": ""})


def _child(name: str, threads: int, folder: Path, data: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench", "peers-case", name]
    command += ["--threads", str(threads), str(folder.resolve()), str(data.resolve())]
    with tempfile.TemporaryDirectory() as place:  # llm-compressor writes logs where it runs
        done = subprocess.run(
            command, cwd=place, stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def _busy_core() -> Iterator[None]:
    """Has another process compute for the length of a ``with``."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
