"""Tables: measured numbers and published ones, side by side and never mixed up."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ecoflap import collect
from ecoflap.targets import DENSE

COSTS = {
    "achieved_sparsity": ("Removed", 100),
    "whole_model_sparsity": ("of all", 100),
    "seconds": ("Seconds", 1),
    "peak_memory_mb": ("Memory (MiB)", 1),
}
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%_#${}"}
    | {"±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
)


def tidy(
    summary: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame | None, settings: Mapping
) -> pd.DataFrame:
    """Makes the long form that the CSV holds.

    Args:
        summary: What `collect.over_seeds` returned.
        costs: What `collect.costs` returned.
        published: The paper's table: method, sparsity and a column per number.
        settings: The experiment, with labels.

    Returns:
        Columns source (measured or published), model, method, sparsity, column, value,
        standard_error, seeds, error_over.
    """
    labels = settings["labels"]
    wanted = summary[summary["task"].isin(settings["tasks"])].copy()
    wanted["column"] = [
        _column(labels["tasks"][task], metric)
        for task, metric in zip(wanted["task"], wanted["metric"], strict=True)
    ]
    parts = [wanted.drop(columns=["task", "metric"])]
    for name, (label, factor) in COSTS.items():
        parts.append(costs[collect.POINT].assign(column=label, value=factor * costs[name]))
    frame = pd.concat(parts, ignore_index=True)
    frame.insert(0, "source", "measured")
    frame["model"] = frame["model"].map(labels["models"])
    frame["method"] = frame["variant"].map({DENSE: "Dense", **labels["variants"]})
    frame = frame.drop(columns="variant")
    if published is not None:
        long = published.melt(["method", "sparsity"], var_name="column")
        frame = pd.concat([frame, long.assign(source="published")], ignore_index=True)
    order = ["source", "model", "method", "sparsity", "column", "value", "standard_error", "seeds"]
    return frame[[*order, "error_over"]]


def _column(task: str, metric: str) -> str:
    return task if metric == "accuracy" else f"{task} {collect.METRIC_LABELS[metric]}"


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """Spreads one source of the long form: a row per model, method and sparsity, cells as text."""
    cells = frame.assign(
        cell=[
            _cell(value, error)
            for value, error in zip(frame["value"], frame["standard_error"], strict=True)
        ]
    )
    index = [key for key in ("model", "method", "sparsity") if cells[key].notna().any()]
    rows = cells[index].drop_duplicates()
    table = cells.pivot(index=index, columns="column", values="cell")
    table = table.reindex(index=pd.MultiIndex.from_frame(rows), columns=cells["column"].unique())
    table = table.fillna("").reset_index()
    return table.rename(columns={"model": "Model", "method": "Method", "sparsity": "Sparsity"})


def _cell(value: float, error: float) -> str:
    if pd.isna(value):
        return ""
    digits = 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if pd.notna(error) else "")


def note(frame: pd.DataFrame) -> str:
    """Says what the numbers and their errors are."""
    measured = frame[frame["source"] == "measured"]
    seeds = int(measured["seeds"].max())
    over = (
        f"Pruned rows: mean ± standard error over {seeds} calibration seeds where the method "
        "uses calibration data; other rows: ± standard error over the test items."
        if seeds > 1
        else "± standard error over the test items; one calibration seed."
    )
    return (
        f"{over} Percent (CIDEr x 100), except perplexity. Removed: share of the prunable weights, "
        "and of all weights of the model. Seconds and memory: scoring and pruning together, with "
        "the weights, without loading them."
    )


def markdown(frame: pd.DataFrame, title: str) -> str:
    """Formats the long form as Markdown: measured, then published."""
    parts = [f"### {title}", "", "Measured by this run:", "", pipe_table(_part(frame, "measured"))]
    parts += ["", note(frame)]
    if (frame["source"] == "published").any():
        parts += ["", "Published by the paper (other models, data and hardware; not measured):", ""]
        parts += [pipe_table(_part(frame, "published"))]
    return "\n".join(parts) + "\n"


def _part(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    return wide(frame[frame["source"] == source])


def pipe_table(table: pd.DataFrame) -> str:
    """Formats a table as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def latex(frame: pd.DataFrame, title: str) -> str:
    """Formats the long form as two LaTeX tables (booktabs): measured, then published."""
    parts = []
    for source in frame["source"].unique():
        table = _part(frame, source).map(_escape)
        table.columns = [_escape(name) for name in table.columns]
        caption = note(frame) if source == "measured" else "Not measured."
        parts.append(
            table.to_latex(
                index=False,
                column_format="l" * 2 + "r" * (len(table.columns) - 2),
                caption=_escape(f"{title}, {source}. {caption}"),
            )
        )
    return "\n".join(parts)


def _escape(text: object) -> str:
    return str(text).translate(LATEX)


def read_published(path: str | Path) -> pd.DataFrame:
    """Reads the paper's numbers; lines that start with # say where they come from."""
    return pd.read_csv(path, comment="#", dtype={"sparsity": str})
