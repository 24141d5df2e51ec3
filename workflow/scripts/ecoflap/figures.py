"""Figures from collected artifacts: what is drawn, and the numbers that were drawn."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ecoflap import collect
from ecoflap.targets import DENSE

LINE_STYLES = ("-", "--", ":")


def draw(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Draws a figure of one of the ``KINDS``.

    Args:
        frame: The table that `collect_data` returned.
        settings: The experiment, with labels.
        style: config/plotting.yaml.
    """
    rc = {
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


def collect_data(settings: Mapping, files: list[str]) -> pd.DataFrame:
    """Reads the artifacts of an experiment into the table that is drawn and stored."""
    if settings["kind"] == "tradeoff":
        frame = collect.over_seeds(collect.metrics(files))
        return frame[frame["task"].isin(settings["tasks"])]
    if settings["kind"] == "sparsity-per-block":
        return collect.plans(files)
    return collect.scores(files)


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


def _legend(figure: Figure, axis) -> None:
    """Puts the legend below the panels, in as many columns as fit, and makes room for its rows."""
    handles, labels = axis.get_legend_handles_labels()
    size = plt.rcParams["font.size"] / 72  # inches
    entry = (0.55 * max(map(len, labels)) + 4) * size  # a letter is about 0.55 wide
    columns = max(1, min(3, len(labels), int(figure.get_figwidth() / entry)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + max(0, rows - 2) * 1.5 * size)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _tradeoff(frame: pd.DataFrame, settings: Mapping, style: Mapping) -> Figure:
    """Metric against sparsity, a panel per number."""
    labels = settings["labels"]
    panels = list(frame.groupby(["task", "metric"], sort=False))
    figure, axes = _panels(len(panels), style, columns=min(2, len(panels)))
    for axis, ((task, metric), part) in zip(axes, panels, strict=True):
        dense = part[part["variant"] == DENSE]["value"].iloc[0]
        axis.axhline(dense, color=style["dense_colour"], linestyle="--", linewidth=1, label="Dense")
        for variant, look in zip(settings["variants"], _looks(style), strict=False):
            line = part[part["variant"] == variant].assign(
                x=lambda rows: rows["sparsity"].astype(float)
            )
            line = line.sort_values("x")
            axis.errorbar(
                line["x"],
                line["value"],
                yerr=line["standard_error"],
                **look,
                markersize=4,
                linewidth=1.2,
                capsize=2,
                label=labels["variants"][variant],
            )
        unit = " (%)" if metric in collect.PERCENT else ""
        name = collect.METRIC_LABELS[metric] + unit
        scale = "log" if metric == "perplexity" else "linear"
        axis.set(title=labels["tasks"][task], xlabel="Sparsity", ylabel=name, yscale=scale)
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
                label=settings["labels"]["variants"][variant],
            )
        axis.set(title=f"{tower.capitalize()} tower", xlabel="Block")
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
    wide = frame.pivot_table(index=["tower", "name"], columns="score_id", values="score")
    figure, axes = _panels(1, style, columns=1)
    axis = axes[0]
    for (tower, part), look in zip(wide.groupby("tower"), _looks(style), strict=False):
        look = {key: look[key] for key in ("color", "marker")}
        axis.scatter(part[x], part[y], s=10, **look, label=tower, alpha=0.7)
    positive = wide[(wide[x] > 0) & (wide[y] > 0)]
    limits = [positive[[x, y]].min().min() / 1.5, positive[[x, y]].max().max() * 1.5]
    axis.plot(
        limits, limits, color=style["dense_colour"], linestyle="--", linewidth=1, label="y = x"
    )
    correlation = np.corrcoef(np.log(positive[x]), np.log(positive[y]))[0, 1]
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axis.set(xlabel=x, ylabel=y, title=f"{len(wide)} matrices, log correlation {correlation:.2f}")
    _legend(figure, axis)
    return figure


KINDS = {
    "tradeoff": _tradeoff,
    "sparsity-per-block": _sparsity_per_block,
    "score-scatter": _score_scatter,
}
