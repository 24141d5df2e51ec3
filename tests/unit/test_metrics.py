"""Metrics against values worked by hand and against pycocoevalcap's own call."""

import math

import pandas as pd
import pytest
from ecoflap.errors import DataError
from ecoflap.evaluation import captions, metrics
from ecoflap.evaluation.answers import normalised
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def frame(rows):
    return pd.DataFrame(rows, columns=["id", "subset", "text", "references", "values"])


def test_accuracy_by_hand():
    rows = [("1", "a", "red", ["red"], []), ("2", "a", "blue", ["red"], [])]
    rows += [("3", "b", "two", ["one", "two"], []), ("4", "b", "", ["one"], [])]
    value = metrics.accuracy(frame(rows))
    assert value.value == 0.5
    assert value.n == 4
    assert value.standard_error == pytest.approx(math.sqrt(0.25 / 3))
    found = {row["subset"]: row["value"] for row in metrics.compute({"kind": "vqa"}, frame(rows))}
    assert found == {"": 0.5, "a": 0.5, "b": 0.5}


def test_recall_counts_a_tie_as_a_miss():
    values = [[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [5.0, 4.9, 1.0]]
    rows = [(str(i), "image-to-text", "", ["x"], v) for i, v in enumerate(values)]
    assert metrics.recall_at_1(frame(rows)).value == 0.5
    rows += [(f"t{i}", "text-to-image", "", ["x"], [1.0, 0.0]) for i in range(2)]
    found = {
        row["metric"]: row["value"] for row in metrics.compute({"kind": "retrieval"}, frame(rows))
    }
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
    (found,) = metrics.compute({"kind": "captioning"}, frame(rows))
    assert found["value"] == pytest.approx(float(expected))


def test_captions_are_compared_as_plain_words():
    assert captions.words("A red, Circle.") == "a red circle"


def test_one_item_has_no_standard_error():
    (number,) = metrics.compute({"kind": "captioning"}, frame([("1", "", "a", ["a"], [])]))
    assert number["standard_error"] is None


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        # Worked by hand from the rules of visualqa.org: ten annotators, min(1, matches / 3) over
        # the nine that are left, averaged.
        ("Yes.", ["yes"] * 10, 1.0),
        ("the red ball", ["red ball"] * 3 + ["ball"] * 7, (3 * 2 / 3 + 7 * 1) / 10),
        ("two", ["2"] * 2 + ["3"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        ("1,000", ["1000"] + ["many"] * 9, 9 * (1 / 3) / 10),
        ("dont know", ["don't know"] * 10, 1.0),
        ("left-hand", ["left hand"] * 4 + ["right"] * 6, 1.0),
        ("what?", ["what"] * 10, 1.0),
        ("3.5", ["3.5"] * 5 + ["35"] * 5, 1.0),
        ("U.S.", ["us"] * 10, 1.0),
        ("none", ["0"] * 10, 1.0),
        ("10:30 (am)", ["10:30 am"] * 10, 1.0),
        ("oclock", ["o'clock"] * 10, 1.0),
        ("blue", ["red"] * 10, 0.0),
        ("cat", ["cat"] * 3, 2 / 3),
    ],
)
def test_vqa_accuracy_by_hand(prediction, answers, expected):
    assert metrics.vqa_accuracy(prediction, answers) == pytest.approx(expected)


def test_one_annotator_cannot_be_left_out():
    with pytest.raises(DataError, match="1 annotators"):
        metrics.vqa_accuracy("cat", ["cat"])


def test_punctuation_vanishes_beside_a_blank_and_separates_elsewhere():
    assert normalised("salt, pepper") == "salt pepper"
    assert normalised("salt/pepper") == "salt pepper"
    assert normalised("- salt") == "salt"
    assert normalised("1,000/2") == "10002"  # as officially: all of it vanishes beside thousands
    assert normalised("A cat and  an  owl") == "cat and owl"


def test_scoring_decides_what_a_right_answer_is():
    rows = [("1", "a", "The Dog.", ["dog"] * 10, []), ("2", "a", "cat", ["cat", "dog"] * 5, [])]
    for scoring, expected in (("exact", 0.5), ("gqa", 1.0), ("vqa", 1.0)):
        task = {"kind": "vqa", "scoring": scoring}
        assert [row["value"] for row in metrics.compute(task, frame(rows))] == [expected] * 2


def test_recall_among_all_candidates():
    ranks = {"image-to-text": [1, 3, 11, 1], "text-to-image": [2, 6]}
    rows = [
        (f"{direction}{i}", direction, "", [], [float(rank)])
        for direction, found in ranks.items()
        for i, rank in enumerate(found)
    ]
    found = {
        row["metric"]: row["value"]
        for row in metrics.compute({"kind": "corpus-retrieval"}, frame(rows))
    }
    assert found == {"tr1": 0.5, "tr5": 0.75, "tr10": 0.75, "ir1": 0, "ir5": 0.5, "ir10": 1}


def test_what_needs_java_says_so_without_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    rows = frame([("1", "", "a", ["a"], [])])
    for task in ({"tokenizer": "ptb"}, {"metrics": ["spice"]}):
        with pytest.raises(DataError, match="no java on the PATH"):
            metrics.compute({"kind": "captioning", **task}, rows)


def test_spice_says_what_is_missing_instead_of_downloading_it(monkeypatch):
    monkeypatch.setattr(captions.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(DataError, match=r"SPICE needs .*corenlp-3\.6\.0\.jar"):
        captions.spice({0: ["a"]}, {0: ["a"]})


def test_the_tokenizer_of_the_official_evaluation_gets_every_caption(monkeypatch):
    """A stand-in for the Java program: it must see each text once, and none of them empty."""
    seen = {}

    def tokenize(self, texts):
        seen.update(texts)
        return {key: [item["caption"].upper() for item in found] for key, found in texts.items()}

    monkeypatch.setattr(captions.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(PTBTokenizer, "tokenize", tokenize)
    assert captions.tokenised({0: ["a", ""]}, "ptb") == {0: ["A", "."]}
    assert seen == {0: [{"caption": "a"}, {"caption": "."}]}


def test_captions_are_also_scored_by_domain():
    rows = [
        (str(i), domain, "a red circle", ["a red circle"], []) for i, domain in enumerate("aab")
    ]
    found = metrics.compute({"kind": "captioning"}, frame(rows))
    assert [row["subset"] for row in found] == ["", "a", "b"]
    assert [row["n"] for row in found] == [3, 2, 1]
