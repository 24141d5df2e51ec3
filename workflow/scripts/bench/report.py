"""The figures of a benchmark as CSV and as Markdown, with what they were measured on."""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ecoflap.artifacts import write_text
from ecoflap.measure import versions
from ecoflap_pipeline.report.tables import pipe_table


def write(
    name: str,
    frame: pd.DataFrame,
    *,
    notes: Sequence[str],
    command: str,
    folder: Path,
    device: str = "cpu",
) -> str:
    """Writes ``<name>.csv`` and ``<name>.md``.

    Args:
        name: Name of the benchmark.
        frame: One row per figure.
        notes: How the figures were made, a sentence or two each.
        command: What was run.
        folder: Where to write.
        device: What was measured, ``cpu`` or a CUDA device.

    Returns:
        The Markdown.
    """
    facts = [
        f"- hardware: {hardware(device)}",
        f"- threads: {torch.get_num_threads()}",
        "- versions: " + ", ".join(f"{key} {value}" for key, value in versions().items()),
        f"- date: {datetime.date.today().isoformat()}",
        f"- command: `{command}`",
    ]
    lines = [f"### Benchmark: {name}", "", pipe_table(readable(frame)), ""]
    text = "\n".join([*lines, *facts, "", *(f"- {note}" for note in notes)]) + "\n"
    write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_text(folder / f"{name}.md", text)
    return text


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats numbers for a reader and drops the underscores of the column names."""
    return frame.map(_cell).rename(columns=lambda name: name.replace("_", " "))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if isinstance(value, bool) or value == 0:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3f}" if size >= 0.01 else f"{value:.1e}"


def hardware(device: str) -> str:
    """Names the processor with its cores and memory, and the GPU where one was measured."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [
            line
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        processor = lines[0].partition(":")[2].strip() if lines else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB"
    return text if device == "cpu" else f"{torch.cuda.get_device_name(device)}; {text}"
