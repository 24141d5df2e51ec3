"""The paper's numbers, and which of them an experiment sets beside its own. Needs no torch."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecoflap.errors import message
from ecoflap.plugins import unknown
from ecoflap_pipeline.points import DENSE

# As seen from where the workflow runs.
FOLDER = os.path.relpath(Path(__file__).parents[3] / "resources" / "published")
KEYS = ("panel", "model", "context", "task", "method", "sparsity", "pattern", "finetuned")
COST_UNITS = {"seconds": 1, "peak_memory_mb": 1024}  # published in seconds and in GB of 1024 MiB
AVERAGE = "average"


def read(path: str | Path, where: Mapping[str, object] | None = None) -> list[dict[str, str]]:
    """Reads a published table as text; lines that start with # say where it comes from.

    Args:
        path: The CSV file.
        where: Column to value: only these rows.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    wanted = {column: str(value) for column, value in (where or {}).items()}
    return [row for row in rows if wanted.items() <= row.items()]


def cells(rows: list[dict[str, str]]) -> list[dict]:
    """Returns the numbers of a published table, column by column.

    Args:
        rows: What `read` returned.

    Returns:
        Dicts with method, sparsity, column and value; NaN where nothing was published.
    """
    columns = [column for column in (rows[0] if rows else ()) if column not in KEYS]
    return [
        {
            "method": row["method"],
            "sparsity": row["sparsity"],
            "column": column,
            "value": float(row[column] or "nan"),
        }
        for column in columns
        for row in rows
    ]


def problems(config: Mapping, folder: str | Path) -> Iterator[str]:
    """Yields what is wrong with the published numbers that experiments name.

    Args:
        config: The merged configuration, its sections well formed.
        folder: Where the published tables lie.
    """
    for name, entry in config["experiments"].items():
        if "published" in entry:
            path = Path(folder, f"{entry['published']}.csv")
            yield from _problems(f"experiments.{name}", config, entry, path)


def _problems(place: str, config: Mapping, entry: Mapping, path: Path) -> Iterator[str]:
    where = entry.get("published_where", {})
    known = read(path)
    wrong = [column for column in where if column not in known[0]]
    for column in wrong:
        yield f"{place}.published_where: " + unknown(f"column of {path.name}", column, known[0])
    rows = read(path, where)
    if not rows and not wrong:
        yield message(
            f"{place}.published_where: no row of {path.name} has {dict(where)}",
            "values that stand in the file",
            "Correct a value, and quote yes and no.",
        )
    if not rows or "published_rows" not in entry:
        return
    yield from _name_problems(place, config, entry, rows)
    twice = [key for key, n in Counter((r["method"], r["sparsity"]) for r in rows).items() if n > 1]
    for method, sparsity in twice:
        yield message(
            f"{place}: {path.name} has several rows for {method} at {sparsity}",
            "one row per method and sparsity",
            "Choose among them with published_where.",
        )
    labels = {config["models"][model]["label"] for model in entry["models"]}
    if len(labels) > 1:
        yield message(
            f"{place}: published_rows with models of the labels {', '.join(sorted(labels))}",
            "models that share one label: published numbers belong to one model",
            "Make an experiment for each.",
        )


def _name_problems(place: str, config: Mapping, entry: Mapping, rows: list) -> Iterator[str]:
    methods = {row["method"] for row in rows}
    variants = [DENSE, *config["variants"]]
    for variant, method in entry["published_rows"].items():
        if variant not in variants:
            yield f"{place}.published_rows: " + unknown("variant", variant, variants)
        if method not in methods:
            yield f"{place}.published_rows: " + unknown("published method", method, methods)
    columns = [column for column in rows[0] if column not in KEYS]
    others = (*COST_UNITS, AVERAGE)
    for key, column in entry["published_columns"].items():
        task = key.partition("/")[0]
        if key not in others and task not in config["tasks"]:
            yield f"{place}.published_columns: " + unknown(
                "task", task, [*config["tasks"], *others]
            )
        if column not in columns:
            yield f"{place}.published_columns: " + unknown("published column", column, columns)
