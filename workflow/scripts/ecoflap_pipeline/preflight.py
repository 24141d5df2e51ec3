"""What the selected experiments need and this machine has not, before any GPU hour is spent."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ecoflap.evaluation import captions
from ecoflap.plugins import FAMILIES, FROM_HUB
from ecoflap_pipeline import points, targets
from ecoflap_pipeline.readiness import absent

SPARE_GB = 5  # for what is stored beside the checkpoints


class Need(NamedTuple):
    """Something that experiments need.

    Attributes:
        what: Its name.
        state: ``here``, ``missing``, or ``unknown`` where only a run can tell.
        detail: Where it is or how large, and its licence.
        remedy: What to do if it is missing.
    """

    what: str
    state: str
    detail: str
    remedy: str = ""


def needs(config: Mapping) -> list[Need]:
    """Lists what the selected experiments need.

    Args:
        config: The merged configuration; ``run`` names the experiments.
    """
    found = [
        *_models(config),
        *_datasets(config),
        *tools(config, targets.collect(config, targets.task_names)),
        *_space(config),
    ]
    return list(dict.fromkeys(found))


def table(found: list[Need]) -> str:
    """Formats needs as Markdown, the missing ones first."""
    order = ("missing", "unknown", "here")
    rows = [
        (need.state, need.what, need.detail, "" if need.state == "here" else need.remedy)
        for need in found
    ]
    rows.sort(key=lambda row: order.index(row[0]))
    lines = ["| State | Need | Detail | Remedy |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def offline() -> bool:
    """Tells whether the hub may be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _models(config: Mapping) -> Iterator[Need]:
    for name in targets.collect(config, targets.models):
        entry = config["models"][name]
        source = entry["source"]
        prepared = Path("results", "models", name, "manifest.json")
        what = f"model {name}"
        if prepared.is_file():
            yield Need(what, "here", str(prepared.parent))
        elif "folder" in source:
            file = FAMILIES[entry["family"]].config_file
            there = Path(source["folder"], file).is_file()
            yield Need(what, "here" if there else "missing", source["folder"], "Put it there.")
        else:
            where = source.get("hub") or source.get("pypi")
            state = "missing" if offline() else "unknown"
            yield Need(what, state, where, "Run `snakemake download` where there is a network.")
        environment = FAMILIES[entry["family"]].environment
        if environment != "pipeline":
            python = config["environments"].get(environment)
            state = "here" if python else "unknown"
            remedy = f"Use --sdm conda, or name its Python under environments.{environment}."
            yield Need(f"environment {environment}", state, python or "conda", remedy)


def _datasets(config: Mapping) -> Iterator[Need]:
    for name, split, view in targets.collect(config, targets.datasets):
        entry = config["datasets"].get(name, {})
        what = f"data {name}, {split}"
        licence = entry.get("licence", "")
        located = points.located(config, {"name": name, "split": split, "view": view})
        folder = located.get("folder")
        if folder is None:
            state = "unknown" if entry or name in FROM_HUB else "here"
            remedy = "Run `snakemake download`, or name a copy under data_folders."
            yield Need(what, state, located.get("hub", "built in"), remedy)
            continue
        missing = absent(located)
        detail = ", ".join(missing) or folder
        remedy = "Put the files there, or name their folder under data_folders."
        yield Need(what, "missing" if missing else "here", f"{detail} ({licence})", remedy)


def tools(config: Mapping, tasks: Iterable[str]) -> Iterator[Need]:
    """Yields what the metrics of some tasks need besides Python."""
    for task in tasks:
        entry = config["tasks"][task]
        spice = "spice" in entry.get("metrics", [])
        if spice or entry.get("tokenizer") == "ptb":
            java = shutil.which("java")
            remedy = "Install a Java runtime (Debian: default-jre-headless)."
            yield Need("Java", "here" if java else "missing", java or "for captions", remedy)
        if spice:
            missing = captions.missing_corenlp()
            state = "missing" if missing else "here"
            remedy = "Run `snakemake download` where there is a network."
            yield Need("CoreNLP for SPICE", state, ", ".join(map(str, missing)), remedy)
        if entry["kind"] == "multiple-choice":
            remedy = "Run `snakemake download` where there is a network."
            yield Need(f"questions of {entry['task']}", "unknown", "read by lm-eval", remedy)


def _space(config: Mapping) -> Iterator[Need]:
    """Compares the free space with the checkpoints that are to be copied."""
    size = 0.0
    for name in targets.collect(config, targets.models):
        folder = config["models"][name]["source"].get("folder")
        if folder and not Path("results", "models", name).exists():
            size += sum(path.stat().st_size for path in Path(folder).glob("*")) / 1e9
    free = shutil.disk_usage(".").free / 1e9
    state = "here" if free > size + SPARE_GB else "missing"
    detail = f"{free:.0f} GB free, {size + SPARE_GB:.0f} GB for local models and results"
    yield Need("disk space", state, detail, "Free some space, or run on a larger disk.")
