"""Tables: measured numbers and published ones, side by side and never mixed up."""

import math
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from ecoflap.export import markup
from ecoflap.plugins import METRIC_LABELS
from ecoflap_pipeline.points import DENSE
from ecoflap_pipeline.report import headings
from ecoflap_pipeline.report.headings import COSTS
from ecoflap_pipeline.report.published import AVERAGE, COST_UNITS

COST_NOTE = (
    "Mean over the calibration seeds. Of the computing itself, without starting Python and loading "
    "the model; allocation: the whole job. Seconds and memory: scoring, choosing p_max, pruning "
    "and fine-tuning together; published costs, where shown, are of scoring and pruning. "
    "Calibration samples and scores are made once for all that use them. GPU-hours and energy: all "
    "stages of a row; energy is that of the whole GPU, where its driver tells it."
)
ROW = ["model", "method", "sparsity"]
NOT_RUN = "not run"
UNDEFINED = "–"


def tidy(
    summary: pd.DataFrame | None, costs: pd.DataFrame, published: list[dict], settings: Mapping
) -> pd.DataFrame:
    """Makes the long form that the CSV holds.

    Args:
        summary: What `collect.over_seeds` returned; None for a table of costs alone.
        costs: What `collect.costs` or `costs.by_stage` returned.
        published: What `published.cells` returned.
        settings: The experiment, with labels and the tasks that each model takes.

    Returns:
        Columns source (measured or published), model, method, sparsity, column, value,
        standard_error, seeds, error_over; in measured rows also published and difference, where
        the experiment says which published number it is, and a note, where there is something to
        know of a number: why there is none, above all. A published method or column that is one
        of ours has our name.
    """
    parts = [] if summary is None else [_metrics(summary, settings)]
    frame = pd.concat([*parts, _costs(costs, settings)], ignore_index=True)
    frame = frame.assign(source="measured", published=float("nan"))
    if published:
        others = _published(published, settings)
        if "published_rows" in settings:
            frame = _beside(frame.drop(columns="published"), others)
        frame = pd.concat([frame, others], ignore_index=True)
    frame["difference"] = frame["value"] - frame["published"]
    order = ["source", *ROW, "column", "value", "standard_error", "seeds", "error_over"]
    return frame.reindex(columns=[*order, "published", "difference", "note"]).fillna({"note": ""})


def _metrics(summary: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """Returns what was evaluated, a row of the table per label, and the average of each row."""
    taken = settings["takes"]
    frame = summary[
        [
            task in taken[model]
            for model, task in zip(summary["model"], summary["task"], strict=True)
        ]
    ]
    frame = _named(frame, settings)
    frame["column"] = [
        _column(f"{task}/{metric}", settings["labels"])
        for task, metric in zip(frame["task"], frame["metric"], strict=True)
    ]
    averages = []
    for row, part in frame.groupby(ROW, sort=False):
        values = part.set_index(["task", "metric"])["value"].to_dict()
        if (mean := _average(values, settings.get("average", {}))) is not None:
            column = _column(AVERAGE, settings["labels"])
            note = "a number that it is of is not defined" if pd.isna(mean) else ""
            place = dict(zip(ROW, row, strict=True))
            averages.append({**place, "column": column, "value": mean, "note": note})
    return pd.concat([frame, pd.DataFrame(averages)], ignore_index=True)


def _average(
    values: Mapping[tuple[str, str], float], parts: Mapping[str, list[str]]
) -> float | None:
    """Returns the mean over tasks of the mean over metrics; None if one is missing.

    NaN if one is not defined.
    """
    wanted = [[(task, metric) for metric in metrics] for task, metrics in parts.items()]
    if not wanted or any(part not in values for task in wanted for part in task):
        return None
    means = [sum(values[part] for part in task) / len(task) for task in wanted]
    return sum(means) / len(means)


def _costs(costs: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """Returns what a row cost: of several models with one label, the mean."""
    named = _named(costs, settings)
    parts = [
        named[ROW].assign(column=label, value=factor * named[name])
        for name, (label, factor) in COSTS.items()
        if name in named
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.groupby([*ROW, "column"], sort=False, as_index=False)["value"].mean()


def _named(frame: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """Replaces models and variants by what a reader sees."""
    labels = settings["labels"]
    replaced = settings.get("dense_from", {})
    methods = [
        f"Dense ({model})" if variant == DENSE and model in replaced else _method(variant, labels)
        for model, variant in zip(frame["model"], frame["variant"], strict=True)
    ]
    models = frame["model"].map(labels["models"])
    return frame.assign(model=models, method=methods).drop(columns="variant")


def _method(variant: str, labels: Mapping) -> str:
    return "Dense" if variant == DENSE else labels["variants"][variant]


def _column(key: str, labels: Mapping) -> str:
    """Returns the heading of task/metric, of the average or of a cost."""
    if key == AVERAGE:
        return headings.AVERAGE
    if key in COSTS:
        return COSTS[key][0]
    task, _, metric = key.partition("/")
    return headings.of_task(labels["tasks"][task], metric)


def _published(cells: Iterable[Mapping], settings: Mapping) -> pd.DataFrame:
    """Names published numbers as ours where the experiment says that they are the same."""
    labels = settings["labels"]
    columns = {name: key for key, name in settings.get("published_columns", {}).items()}
    methods = {name: variant for variant, name in settings.get("published_rows", {}).items()}
    frame = pd.DataFrame(cells).assign(source="published")
    factors = [COST_UNITS.get(columns.get(column, ""), 1) for column in frame["column"]]
    frame["value"] *= factors
    frame["ours"] = frame["method"].isin(list(methods)) & frame["column"].isin(list(columns))
    frame["column"] = [
        _column(columns[name], labels) if name in columns else name for name in frame["column"]
    ]
    if methods:
        frame["model"] = next(iter(labels["models"].values()))
        frame["method"] = [
            _method(methods[name], labels) if name in methods else f"{name} (published)"
            for name in frame["method"]
        ]
    return frame


def _beside(measured: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Puts published numbers beside the measured ones that they belong to."""
    key = [*ROW, "column"]
    same = published[published["ours"]].rename(columns={"value": "published"})
    return measured.merge(same[[*key, "published"]], on=key, how="left", validate="one_to_one")


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """Spreads the long form: a row per model, method and sparsity, cells as text.

    A cell holds the measured number and, in brackets, the published one and the difference; one
    that was not run says so, and one that is not defined is a dash. Published rows count only
    where the experiment says which are ours.
    """
    published = frame[frame["source"] == "published"]
    together = pd.concat(
        [frame[frame["source"] == "measured"], published[published["model"].notna()]]
    )
    texts: dict[tuple, str] = {}
    for row in together[together["value"].notna() | (together["note"] != "")].itertuples():
        place = ((row.model, row.method, row.sparsity), row.column)
        if row.source == "measured":
            texts[place] = _cell(row.value, row.standard_error, row.column)
            if pd.notna(row.published):
                texts[place] += _compared(row)
        elif place not in texts:
            texts[place] = f"{NOT_RUN} ({_number(row.value, _digits(row.value, row.column))})"
    rows = list(dict.fromkeys(together[ROW].itertuples(index=False, name=None)))
    columns = list(dict.fromkeys(together["column"]))
    costs = [label for label, _ in COSTS.values()]
    columns.sort(key=lambda column: column in costs)  # costs come last
    cells = [
        [*row, *(texts.get((row, c), "" if c in costs else NOT_RUN) for c in columns)]
        for row in rows
    ]
    return pd.DataFrame(cells, columns=["Model", "Method", "Sparsity", *columns])


def published_alone(frame: pd.DataFrame) -> pd.DataFrame:
    """Spreads published numbers of which the experiment does not say what they are here."""
    part = frame[(frame["source"] == "published") & frame["model"].isna()]
    texts = [
        "" if pd.isna(value) else _number(value, _digits(value, column))
        for value, column in zip(part["value"], part["column"], strict=True)
    ]
    index = ["method", "sparsity"]
    table = part.assign(text=texts).pivot(index=index, columns="column", values="text")
    rows = pd.MultiIndex.from_frame(part[index].drop_duplicates())
    table = table.reindex(index=rows, columns=part["column"].unique()).reset_index()
    return table.rename(columns={"method": "Method", "sparsity": "Sparsity"})


def _digits(value: float, column: str) -> int:
    if column == COSTS["gpu_hours"][0]:
        return 3
    if abs(value) < 1:
        return 2
    return 2 if column.endswith(METRIC_LABELS["perplexity"]) and abs(value) < 100 else 1


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if not abs(value) >= 1e6 or math.isinf(value) else f"{value:.3g}"


def _cell(value: float, error: float, column: str) -> str:
    if pd.isna(value):
        return UNDEFINED
    digits = _digits(value, column)
    return _number(value, digits) + (f" ± {_number(error, digits)}" if pd.notna(error) else "")


def _compared(row) -> str:
    published = _number(row.published, _digits(row.published, row.column))
    if not math.isfinite(row.difference):
        return f" ({published})"
    digits = max(_digits(row.value, row.column), _digits(row.published, row.column))
    difference = f"{round(row.difference, digits) + 0.0:+.{digits}f}".replace("-", "−")
    return f" ({published}, {difference})"


def note(frame: pd.DataFrame) -> str:
    """Says what the numbers and their errors are."""
    measured = frame[frame["source"] == "measured"]
    if measured["seeds"].isna().all():
        return COST_NOTE
    seeds = int(measured["seeds"].max())
    over = (
        f"Mean ± standard error over up to {seeds} calibration seeds, as the CSV says for each "
        "number; where there is one, and of the dense model, ± standard error over the test items."
        if seeds > 1
        else "± standard error over the test items; one calibration seed."
    )
    text = (
        f"{over} Percent (CIDEr x 100), except perplexity. Removed: share of the prunable weights, "
        "and of all weights of the model. Seconds and memory: scoring, pruning and any "
        "fine-tuning together, with the weights, without loading them."
    )
    if COSTS["tokens_per_feature"][0] in set(measured["column"]):
        text += (
            " Tokens per feature: calibration tokens that the pruning pass read for each input "
            "feature of a matrix, without padding, of the matrix with the fewest."
        )
    if frame.loc[frame["source"] == "published", "model"].notna().any():
        text += (
            " In brackets: the published number, and measured minus published. Not run: nothing "
            "was measured here; a number in brackets beside it is the published one."
        )
    return " ".join([text, *_remarks(measured)])


def _remarks(measured: pd.DataFrame) -> Iterator[str]:
    """Yields what is to know of single numbers, and of which."""
    noted = measured[measured["note"] != ""]
    if noted["value"].isna().any():
        yield f"{UNDEFINED}: not defined."
    for (column, note), part in noted.groupby(["column", "note"], sort=False):
        named = ", ".join(f"{row.model} {row.method} {row.sparsity}" for row in part.itertuples())
        everywhere = len(part) == (measured["column"] == column).sum()
        yield f"{column}: {note}." if everywhere else f"{column} of {named}: {note}."


def markdown(frame: pd.DataFrame, title: str) -> str:
    """Formats the long form as Markdown."""
    parts = [f"### {markup.markdown(title)}", "", "Measured by this run:", ""]
    parts += [pipe_table(side_by_side(frame)), "", markup.markdown(note(frame))]
    if _has_others(frame):
        parts += ["", "Published by the paper (other models, data and hardware; not measured):", ""]
        parts += [pipe_table(published_alone(frame))]
    return "\n".join(parts) + "\n"


def _has_others(frame: pd.DataFrame) -> bool:
    return ((frame["source"] == "published") & frame["model"].isna()).any()


def pipe_table(table: pd.DataFrame) -> str:
    """Formats a table as Markdown, in which headings and cells stay the text that they are."""
    rows = [list(table.columns), *table.to_numpy().tolist()]
    heading, *cells = ([markup.markdown(cell) for cell in row] for row in rows)
    rows = [heading, ["---"] * len(heading), *cells]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def latex(frame: pd.DataFrame, title: str) -> str:
    """Formats the long form as a LaTeX table (booktabs), published numbers alone as a second."""
    parts = [_booktabs(side_by_side(frame), f"{title}, measured. {note(frame)}")]
    if _has_others(frame):
        parts.append(_booktabs(published_alone(frame), f"{title}, published. Not measured."))
    text = "\n".join(parts)
    hint = "% Compile with XeLaTeX or LuaLaTeX and a font that has all characters.\n"
    return hint * markup.needs_unicode(text) + text


def _booktabs(table: pd.DataFrame, caption: str) -> str:
    texts = sum(name in ("Model", "Method") for name in table.columns)
    table = table.map(markup.latex).rename(columns=markup.latex)
    return table.to_latex(
        index=False,
        column_format="l" * texts + "r" * (len(table.columns) - texts),
        caption=markup.latex(caption),
    )
