"""Figures from collected artifacts: what is drawn, and the numbers that were drawn."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ecoflap import artifacts
from ecoflap.export.markup import plot as shown
from ecoflap.plugins import METRIC_LABELS, PERCENT
from ecoflap_pipeline.points import DENSE
from ecoflap_pipeline.report import collect

LINE_STYLES = ("-", "--", ":")
LEVELS = 16  # of a loss landscape
SMOOTHING = 50  # points of a training curve that a mean of neighbours leaves apart


def draw(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Draws a figure of one of the ``KINDS``.

    Args:
        frame: The table that `collect_data` returned.
        settings: The experiment, with labels.
        style: config/plotting.yaml.
    """
    rc: dict[Any, Any] = {
        "font.size": style["font_size"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "ecoflap",  # the same numbers give the same file
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
    }
    with plt.rc_context(rc):
        return KINDS[settings["kind"]](frame, settings, style)


def collect_data(
    settings: Mapping, files: Sequence[str], published: Iterable[Mapping] = ()
) -> pd.DataFrame:
    """Reads the artifacts of an experiment into the table that is drawn and stored.

    Args:
        settings: The experiment.
        files: The artifacts.
        published: What `published.cells` returned (tradeoff).
    """
    if settings["kind"] in ("tradeoff", "ablation"):
        frame = collect.over_seeds(collect.metrics(files))
        frame = frame[frame["task"].isin(settings["tasks"])].assign(source="measured")
        if settings["kind"] == "ablation":
            return frame.assign(x=frame["variant"].map(settings["x"]))
        return pd.concat([frame, _published(published, settings)], ignore_index=True)
    if settings["kind"] == "sparsity-per-block":
        return collect.plans(files)
    if settings["kind"] == "training-curve":
        return collect.curves(files)
    if settings["kind"] == "loss-landscape":
        (file,) = files
        return artifacts.read_table(file, "landscape")[0]
    return collect.scores(files)


def _published(cells: Iterable[Mapping], settings: Mapping) -> pd.DataFrame:
    """Returns the published numbers that the experiment names, with our names of them."""
    variants = {name: variant for variant, name in settings.get("published_rows", {}).items()}
    columns = {name: key for key, name in settings.get("published_columns", {}).items()}
    rows = []
    for cell in cells:
        if cell["method"] in variants and cell["column"] in columns:
            task, _, metric = columns[cell["column"]].partition("/")
            row = {"variant": variants[cell["method"]], "task": task, "metric": metric}
            rows.append({**row, "sparsity": cell["sparsity"], "value": cell["value"]})
    return pd.DataFrame(rows).assign(source="published")


def save(figure: Figure, paths: Mapping[str, str | Path], dpi: int) -> None:
    """Writes a figure in each format, without the date, so that bytes repeat."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": None}
    for suffix, path in paths.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, metadata=dates[suffix])
    plt.close(figure)


def _looks(style: Mapping) -> Iterator[dict[str, str]]:
    """Yields colour, marker and line style; where colours start anew, the other two change."""
    count = len(style["colours"])
    for number in itertools.count():
        around, position = divmod(number, count)
        yield {
            "color": style["colours"][position],
            "marker": style["markers"][(position + around) % len(style["markers"])],
            "linestyle": LINE_STYLES[around % len(LINE_STYLES)],
        }


def _panels(count: int, style: Mapping, *, columns: int, share_y: bool = False):
    rows = -(-count // columns)
    size = (style["width_inches"] * columns, style["height_inches"] * rows + 0.5)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", sharey=share_y
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes.flat[:count]


def _legend(figure: Figure, axis, *further: Line2D) -> None:
    """Puts the legend below the panels, in as many columns as fit, and makes room for its rows."""
    handles, labels = axis.get_legend_handles_labels()
    handles, labels = [*handles, *further], [*labels, *(str(h.get_label()) for h in further)]
    size = plt.rcParams["font.size"] / 72  # inches
    entry = (0.55 * max(map(len, labels)) + 4) * size  # a letter is about 0.55 wide
    columns = max(1, min(3, len(labels), int(figure.get_figwidth() / entry)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + max(0, rows - 2) * 1.5 * size)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _tradeoff(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Metric against sparsity, a panel per number; its title names what has no finite number."""
    labels = settings["labels"]
    others = frame[frame["source"] == "published"]
    panels = list(frame[frame["source"] == "measured"].groupby(["task", "metric"], sort=False))
    figure, axes = _panels(len(panels), style, columns=min(2, len(panels)))
    for axis, ((task, metric), part) in zip(axes, panels, strict=True):
        missing = _flat(axis, part[part["variant"] == DENSE], style["dense_colour"], "Dense")
        for variant, look in zip(settings["variants"], _looks(style), strict=False):
            line = part[part["variant"] == variant].assign(
                x=lambda rows: rows["sparsity"].astype(float)
            )
            missing += _errorbar(axis, line.sort_values("x"), look, labels["variants"][variant])
            here = (others["task"] == task) & (others["metric"] == metric)
            theirs = others[here & (others["variant"] == variant)]
            axis.plot(theirs["sparsity"].astype(float), theirs["value"], **_hollow(look))
        axis.set(title=_title(labels["tasks"][task], missing), xlabel="Sparsity", **_y_axis(metric))
    key = Line2D([], [], **_hollow({"color": "black", "marker": "o"}), label="published (hollow)")
    _legend(figure, axes[0], *([key] if len(others) else []))
    return figure


def _errorbar(axis, line: pd.DataFrame, look: Mapping, label: str) -> list[str]:
    """Draws the numbers that are finite; returns the names of the others."""
    finite = np.isfinite(line["value"].astype(float))
    drawn = line[finite]
    axis.errorbar(
        drawn["x"],
        drawn["value"],
        yerr=drawn["standard_error"],
        **look,
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=shown(label),
    )
    return [f"{label} at {x:g}" for x in line.loc[~finite, "x"]]


def _flat(axis, row: pd.DataFrame, colour: str, label: str) -> list[str]:
    """Draws one number as a line across a panel; returns its name if it is not finite."""
    value = float(row["value"].iloc[0])
    look = {"color": colour, "linestyle": "--", "linewidth": 1, "label": shown(label)}
    if np.isfinite(value):
        axis.axhline(value, **look)
        return []
    axis.plot([], [], **look)  # the legend is that of the first panel
    return [label]


def _title(label: str, missing: Sequence[str]) -> str:
    """Returns the title of a panel, with what has no finite number in it."""
    return shown(label) + "".join(f"\nno finite number: {shown(name)}" for name in missing)


def _hollow(look: Mapping) -> dict:
    """Returns the look of published points: those of a line, hollow, without the line."""
    shape = {key: look[key] for key in ("color", "marker")}
    return {**shape, "linestyle": "none", "markerfacecolor": "none", "markersize": 7}


def _y_axis(metric: str) -> dict[str, str]:
    unit = " (%)" if metric in PERCENT else ""
    scale = "log" if metric == "perplexity" else "linear"
    return {"ylabel": METRIC_LABELS[metric] + unit, "yscale": scale}


def _ablation(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Metric against one varied setting, a panel per number; what has no x is a flat line."""
    labels, places = settings["labels"], settings["x"]
    names = list(dict.fromkeys(places.values())) if _are_names(places.values()) else []
    flat = [variant for variant in settings["variants"] if variant not in places]
    panels = list(frame.groupby(["task", "metric"], sort=False))
    figure, axes = _panels(len(panels), style, columns=min(2, len(panels)))
    for axis, ((task, metric), part) in zip(axes, panels, strict=True):
        looks = _looks(style)
        line = part[part["variant"].isin(list(places))]
        line = line.assign(x=line["x"].map(names.index) if names else line["x"].astype(float))
        look = next(looks) | ({"linestyle": "none"} if names else {})
        missing = _errorbar(axis, line.sort_values("x"), look, "varied")
        for variant, look in zip(flat, looks, strict=False):
            row = part[part["variant"] == variant]
            missing += _flat(axis, row, look["color"], labels["variants"][variant])
        title = _title(labels["tasks"][task], missing)
        axis.set(title=title, xlabel=shown(settings["x_label"]), **_y_axis(metric))
        if names:
            axis.set_xticks(range(len(names)), map(shown, names))
            axis.set_xlim(-0.5, len(names) - 0.5)
        else:
            axis.set_xscale(settings.get("x_scale", "linear"))
            ticks = sorted(set(line["x"]))
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
    if flat:
        _legend(figure, axes[0])
    return figure


def _are_names(values: Iterable[object]) -> bool:
    return any(isinstance(value, str) for value in values)


def _loss_landscape(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Contours of the loss on a plane around the dense weights, levels in equal ratios.

    A loss that is the same everywhere has none.
    """
    grid = frame.pivot(index="y", columns="x", values="loss")
    lowest, highest = float(frame["loss"].min()), float(frame["loss"].max())
    spaced = np.geomspace if lowest > 0 else np.linspace
    ticks = np.unique(spaced(lowest, highest, 6))
    levels = spaced(lowest, highest, LEVELS)
    if lowest == highest:
        levels = np.array([lowest - 1, lowest + 1])
    figure, axes = _panels(1, {**style, "height_inches": style["width_inches"]}, columns=1)
    axis = axes[0]
    filled = axis.contourf(grid.columns, grid.index, grid.to_numpy(), levels, cmap="viridis")
    axis.contour(grid.columns, grid.index, grid.to_numpy(), levels, colors="white", linewidths=0.3)
    dense = float(grid.loc[0.0, 0.0])
    axis.plot(0, 0, marker="+", color="red", linestyle="none", label=f"dense weights: {dense:.3g}")
    axis.set(xlabel="First direction", ylabel="Second direction", aspect="equal")
    axis.set_title(shown(next(iter(settings["labels"]["models"].values()))))
    bar = figure.colorbar(filled, ax=axis, label="Calibration loss", shrink=0.8)
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:.3g}" for tick in ticks])
    _legend(figure, axis)
    return figure


def _training_curve(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Loss against step, a panel per sparsity: held out with markers, in training smoothed."""
    panels = list(frame.groupby("sparsity", sort=False))
    figure, axes = _panels(len(panels), style, columns=min(2, len(panels)), share_y=True)
    for axis, (sparsity, part) in zip(axes, panels, strict=True):
        for variant, look in zip(settings["variants"], _looks(style), strict=False):
            for seed, line in part[part["variant"] == variant].groupby("seed"):
                width = max(1, len(line) // SMOOTHING)
                smooth = line["loss"].rolling(width, min_periods=1).mean()
                axis.plot(line["step"], smooth, color=look["color"], linewidth=0.6, alpha=0.5)
                stops = line[line["held_out_loss"].notna()]
                first = seed == part["seed"].iloc[0]
                label = shown(settings["labels"]["variants"][variant]) if first else None
                axis.plot(
                    stops["step"],
                    stops["held_out_loss"],
                    **look,
                    markersize=3,
                    linewidth=1.2,
                    label=label,
                )
        axis.set(title=f"Sparsity {sparsity}", xlabel="Step", yscale="log")
    axes[0].set_ylabel("Loss (line: held out)")
    _legend(figure, axes[0])
    return figure


def _sparsity_per_block(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Sparsity per block for each variant, a panel per tower."""
    (sparsity,) = settings["sparsities"]
    panels = list(frame.groupby("tower", sort=False))
    figure, axes = _panels(len(panels), style, columns=min(2, len(panels)), share_y=True)
    for axis, (tower, part) in zip(axes, panels, strict=True):
        axis.axhline(
            float(sparsity),
            color=style["dense_colour"],
            linestyle="--",
            linewidth=1,
            label=f"Uniform ({sparsity})",
        )
        blocks = list(dict.fromkeys(part["block"]))
        for variant, look in zip(settings["variants"], _looks(style), strict=False):
            rows = part[part["variant"] == variant]
            mean = rows.groupby("block", sort=False)["block_sparsity"].mean().reindex(blocks)
            axis.plot(
                range(len(blocks)),
                mean,
                **look,
                markersize=4,
                linewidth=1.2,
                label=shown(settings["labels"]["variants"][variant]),
            )
        axis.set(title=f"{shown(tower).capitalize()} tower", xlabel="Block")
        axis.set_xticks(range(len(blocks)), _short_names(blocks))
    axes[0].set_ylabel("Sparsity")
    _legend(figure, axes[0])
    return figure


def _short_names(blocks: list[str]) -> list[str]:
    """Numbers blocks; in an encoder-decoder, with E or D before the number."""
    prefix = {True: "D", False: "E"} if any(".decoder." in name for name in blocks) else {}
    return [prefix.get(".decoder." in name, "") + name.rpartition(".")[2] for name in blocks]


def _score_scatter(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """One score against another, a point per matrix, on logarithmic axes."""
    x, y = settings["scores"]
    wide = frame.pivot_table(index=["tower", "name"], columns="score_id", values="score")[[x, y]]
    figure, axes = _panels(1, style, columns=1)
    axis = axes[0]
    for (tower, part), look in zip(wide.groupby("tower"), _looks(style), strict=False):
        look = {key: look[key] for key in ("color", "marker")}
        axis.scatter(part[x], part[y], s=10, **look, label=shown(tower), alpha=0.7)
    positive = wide[(wide[x] > 0) & (wide[y] > 0)]
    limits = (0.1, 10)
    if len(positive):
        limits = (positive[[x, y]].min().min() / 1.5, positive[[x, y]].max().max() * 1.5)
    axis.plot(
        limits, limits, color=style["dense_colour"], linestyle="--", linewidth=1, label="y = x"
    )
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axis.set(xlabel=x, ylabel=y, title=_correlation(wide, positive))
    _legend(figure, axis)
    return figure


def _correlation(wide: pd.DataFrame, positive: pd.DataFrame) -> str:
    """Returns the number of matrices, and how the logarithms of two scores correlate."""
    gone = len(wide) - len(positive)
    counted = f"{len(wide)} matrices" + (f" ({gone} not above 0, not drawn)" if gone else "")
    if (positive.nunique() < 2).any():
        return f"{counted}, no correlation: a score is constant"
    correlation = np.corrcoef(np.log(positive).T.to_numpy())[0, 1]
    return f"{counted}, log correlation {correlation:.2f}"


KINDS = {
    "tradeoff": _tradeoff,
    "ablation": _ablation,
    "sparsity-per-block": _sparsity_per_block,
    "score-scatter": _score_scatter,
    "loss-landscape": _loss_landscape,
    "training-curve": _training_curve,
}
