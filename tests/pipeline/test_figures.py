"""Figures: what is drawn is what was given, read back from the drawing."""

import numpy as np
import pandas as pd
import pytest
import yaml

from ecoflap_pipeline.report import figures
from helpers.configs import ROOT

STYLE = yaml.safe_load((ROOT / "config" / "plotting.yaml").read_text())["plotting"]
LABELS = {
    "models": {"m": "M"},
    "variants": {"a": "A", "b": "B", "c": "C"},
    "tasks": {"t": "T"},
}


def point(variant, sparsity, value, source="measured"):
    return {
        "model": "m",
        "variant": variant,
        "sparsity": sparsity,
        "task": "t",
        "metric": "accuracy",
        "value": value,
        "standard_error": 1.0,
        "source": source,
    }


def lines_of(figure):
    """Label and points of each line of the first panel, those of error bars among them."""
    lines = [(line.get_label(), line.get_xydata().tolist()) for line in figure.axes[0].lines]
    return [(label, points) for label, points in lines if points]


def test_published_points_lie_hollow_beside_the_measured_line():
    rows = [point("dense", "0.0", 90), point("a", "0.6", 60), point("a", "0.5", 70)]
    rows += [point("a", "0.5", 72, "published")]
    settings = {"kind": "tradeoff", "variants": ["a"], "labels": LABELS}
    figure = figures.draw(pd.DataFrame(rows), settings, STYLE)
    drawn = [
        (line.get_xydata().tolist(), line.get_markerfacecolor())
        for line in figure.axes[0].lines
        if line.get_marker() == STYLE["markers"][0]
    ]
    assert ([[0.5, 70.0], [0.6, 60.0]], STYLE["colours"][0]) in drawn
    assert ([[0.5, 72.0]], "none") in drawn
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Dense", "A", "published (hollow)"]


@pytest.mark.parametrize("places", [{"a": 1, "b": 10}, {"a": "one", "b": "ten"}])
def test_an_ablation_shows_each_variant_at_its_place(places):
    rows = [point("a", "0.5", 70), point("b", "0.5", 75), point("c", "0.5", 60)]
    frame = pd.DataFrame(rows)
    frame["x"] = frame["variant"].map(places)
    settings = {
        "kind": "ablation",
        "variants": ["c", "a", "b"],
        "labels": LABELS,
        "x": places,
        "x_label": "Setting",
        "x_scale": "linear",
    }
    figure = figures.draw(frame, settings, STYLE)
    axis = figure.axes[0]
    found = lines_of(figure)
    numbers = not isinstance(places["a"], str)
    expected = [[1.0, 70.0], [10.0, 75.0]] if numbers else [[0.0, 70.0], [1.0, 75.0]]
    assert expected in [points for _, points in found]
    assert [y for _, y in dict(found)["C"]] == [60.0, 60.0]
    ticks = [tick.get_text() for tick in axis.get_xticklabels()]
    assert ticks == [str(place) for place in places.values()]
    assert axis.get_xlabel() == "Setting"


def test_a_landscape_has_the_dense_weights_in_its_middle():
    axis = np.linspace(-1, 1, 5)
    rows = [(x, y, 1 + x * x + 2 * y * y) for y in axis for x in axis]
    frame = pd.DataFrame(rows, columns=["x", "y", "loss"])
    figure = figures.draw(frame, {"kind": "loss-landscape", "labels": LABELS}, STYLE)
    assert lines_of(figure) == [("dense weights: 1", [[0.0, 0.0]])]
    levels = figure.axes[0].collections[0].levels
    assert (levels[0], levels[-1]) == (pytest.approx(1), pytest.approx(4))


def tradeoff(rows, label="A", task="T"):
    labels = {**LABELS, "variants": {"a": label}, "tasks": {"t": task}}
    settings = {"kind": "tradeoff", "variants": ["a"], "labels": labels}
    return figures.draw(pd.DataFrame(rows), settings, STYLE)


@pytest.mark.parametrize("broken", [np.inf, np.nan])
@pytest.mark.parametrize("metric", ["perplexity", "accuracy"])
def test_a_number_that_is_not_finite_is_named_and_not_drawn(broken, metric, tmp_path):
    rows = [point("dense", "0.0", 30), point("a", "0.5", 40), point("a", "0.8", broken)]
    figure = tradeoff([{**row, "metric": metric} for row in rows])
    assert dict(lines_of(figure))["Dense"][0][1] == 30
    assert [[0.5, 40.0]] in [points for _, points in lines_of(figure)]
    assert figure.axes[0].get_title() == "T\nno finite number: A at 0.8"
    figures.save(figure, {name: tmp_path / f"f.{name}" for name in ("pdf", "svg", "png")}, 50)


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_figure_of_which_nothing_is_finite_is_drawn_all_the_same(broken, tmp_path):
    rows = [point("dense", "0.0", broken), point("a", "0.5", broken)]
    figure = tradeoff([{**row, "metric": "perplexity", "standard_error": np.nan} for row in rows])
    assert figure.axes[0].get_title().count("no finite number") == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Dense", "A"]
    figures.save(figure, {"svg": tmp_path / "f.svg", "png": tmp_path / "f.png"}, 50)


def test_text_of_labels_is_no_mathematics_and_stays_in_the_legend(tmp_path):
    r"""Read back from the SVG's comments; ``$\frac$`` would be an error of mathtext."""
    rows = [point("dense", "0.0", 90), point("a", "0.5", 70)]
    figure = tradeoff(rows, label="_5$ or $\\frac$", task="$x_1$\nand\r<b>&")
    figures.save(figure, {"svg": tmp_path / "f.svg"}, 50)
    drawing = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert "<!--  _5$ or $\\frac$ -->" in drawing
    assert "<!-- $x_1$ and &lt;b&gt;&amp; -->" in drawing


def scatter(first, second):
    rows = [
        {"tower": "t", "name": str(i), "score_id": name, "score": score}
        for name, scores in (("one", first), ("two", second))
        for i, score in enumerate(scores)
    ]
    settings = {"kind": "score-scatter", "scores": ["one", "two"], "labels": LABELS}
    return figures.draw(pd.DataFrame(rows), settings, STYLE).axes[0].get_title()


@pytest.mark.parametrize(
    ("first", "second", "title"),
    [
        ([1, 10, 100], [1, 10, 100], "3 matrices, log correlation 1.00"),
        ([1, 10, 0], [100, 10, 1], "3 matrices (1 not above 0, not drawn), log correlation -1.00"),
        ([1, 10], [2, 2], "2 matrices, no correlation: a score is constant"),
        ([1], [2], "1 matrices, no correlation: a score is constant"),
        (
            [0, 0],
            [0, 1],
            "2 matrices (2 not above 0, not drawn), no correlation: a score is constant",
        ),
    ],
)
def test_scores_that_are_constant_have_no_correlation(first, second, title):
    assert scatter(first, second) == title


@pytest.mark.parametrize("loss", [2.0, 0.0])
def test_a_loss_that_is_the_same_everywhere_is_drawn(loss):
    axis = np.linspace(-1, 1, 3)
    frame = pd.DataFrame([(x, y, loss) for y in axis for x in axis], columns=["x", "y", "loss"])
    figure = figures.draw(frame, {"kind": "loss-landscape", "labels": LABELS}, STYLE)
    assert lines_of(figure) == [(f"dense weights: {loss:g}", [[0.0, 0.0]])]
