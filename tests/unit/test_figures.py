"""Figures: what is drawn is what was given, read back from the drawing."""

import numpy as np
import pandas as pd
import pytest
import yaml
from configs import ROOT
from ecoflap import figures

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
