"""Metrics against values worked by hand and against pycocoevalcap's own call."""

import math

import pandas as pd
import pytest
from ecoflap.evaluation import metrics
from pycocoevalcap.cider.cider import Cider


def frame(rows):
    return pd.DataFrame(rows, columns=["id", "subset", "text", "references", "values"])


def test_accuracy_by_hand():
    rows = [("1", "a", "red", ["red"], []), ("2", "a", "blue", ["red"], [])]
    rows += [("3", "b", "two", ["one", "two"], []), ("4", "b", "", ["one"], [])]
    value = metrics.accuracy(frame(rows))
    assert value.value == 0.5
    assert value.n == 4
    assert value.standard_error == pytest.approx(math.sqrt(0.25 / 3))
    found = {row["subset"]: row["value"] for row in metrics.compute("vqa", frame(rows))}
    assert found == {"": 0.5, "a": 0.5, "b": 0.5}


def test_recall_counts_a_tie_as_a_miss():
    values = [[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [5.0, 4.9, 1.0]]
    rows = [(str(i), "image-to-text", "", ["x"], v) for i, v in enumerate(values)]
    assert metrics.recall_at_1(frame(rows)).value == 0.5
    rows += [(f"t{i}", "text-to-image", "", ["x"], [1.0, 0.0]) for i in range(2)]
    found = {row["metric"]: row["value"] for row in metrics.compute("retrieval", frame(rows))}
    assert found == {"tr1": 0.5, "ir1": 1.0}


def test_perplexity_is_that_of_all_tokens():
    rows = [("1", "", "", [], [10.0, 4.0]), ("2", "", "", [], [2.0, 2.0])]
    assert metrics.perplexity(frame(rows)).value == pytest.approx(math.exp(12 / 6))


def test_cider_is_pycocoevalcaps():
    texts = ["a red circle", "a blue square", "two shapes"]
    references = [["a red circle", "red circle"], ["a green square"], ["two red shapes", "shapes"]]
    rows = [(str(i), "", t, r, []) for i, (t, r) in enumerate(zip(texts, references, strict=True))]
    expected, _ = Cider().compute_score(
        dict(enumerate(references)), {i: [t] for i, t in enumerate(texts)}
    )
    assert metrics.cider(frame(rows)).value == pytest.approx(float(expected))


def test_captions_are_compared_as_plain_words():
    assert metrics.words("A red, Circle.") == "a red circle"


def test_one_item_has_no_standard_error():
    (number,) = metrics.compute("captioning", frame([("1", "", "a", ["a"], [])]))
    assert number["standard_error"] is None
