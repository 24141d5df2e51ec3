"""Metrics against values worked by hand and against pycocoevalcap's own call."""

import json
import math

import pandas as pd
import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from ecoflap.errors import DataError
from ecoflap.evaluation import captions, metrics
from ecoflap.evaluation.answers import normalised


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red, Circle.", "a red circle"),
        ("don't-stop_2 now", "don t stop 2 now"),
        ("F\u00fc\u00dfe", "f\u00fc\u00dfe"),
        ("Cafe\u0301", "caf\u00e9"),
        (
            "\u041a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433!",
            "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433",
        ),
        # Chinese "three red cats", with a Latin word and a number: a word a character.
        ("\u4e09\u53ea\u7ea2\u732b ab12", "\u4e09 \u53ea \u7ea2 \u732b ab12"),
        ("\u304c\u30fc2", "\u304c \u30fc 2"),
        # Thai and Hindi: a vowel sign or a virama belongs to the letter before it.
        ("\u0e14\u0e35\u0e04", "\u0e14\u0e35 \u0e04"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\ud55c\uad6d\uc5b4 a", "\ud55c\uad6d\uc5b4 a"),
        ("\u2764\ufe0f ?!", ""),
    ],
)
def test_captions_are_compared_as_plain_words(text, expected):
    assert captions.words(text) == expected


def test_captions_of_any_script_have_a_cider():
    """As of English with as many words: the letters play no part."""
    english = [["red cat", "a red cat"], ["blue dog", "a dog"]]
    spell = {letter: 0x430 + place for place, letter in enumerate(range(ord("a"), ord("z") + 1))}
    found = []
    for texts in (english, [[t.translate(spell) for t in texts] for texts in english]):
        rows = [(str(i), "", references[1], references, []) for i, references in enumerate(texts)]
        found.append(metrics.compute({"kind": "captioning"}, frame(rows))[0]["value"])
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("tokenizer", ["plain", "ptb"])
def test_a_reference_without_words_is_refused_by_name(tokenizer):
    rows = frame([("7", "", "a", ["a cat"], []), ("8", "", "a", ["a dog", "?!"], [])])
    with pytest.raises(DataError, match=r"the picture 8 has the caption '\?!'"):
        metrics.compute({"kind": "captioning", "tokenizer": tokenizer}, rows)


@pytest.mark.parametrize("said", ["", "?!"])
def test_who_says_nothing_of_a_picture_gets_zero_for_it(said):
    references = {0: ["a cat"], 1: ["two dogs"]}
    whole = captions.cider(references, references)
    rows = frame([("0", "", "a cat", ["a cat"], []), ("1", "", said, ["two dogs"], [])])
    (number,) = metrics.compute({"kind": "captioning"}, rows)
    assert number["value"] == pytest.approx(whole[0] / 2)


def test_spice_is_not_asked_about_captions_without_words(monkeypatch):
    seen = {}

    class Spice:
        def compute_score(self, references, candidates):
            """Gives each picture a half."""
            seen.update(candidates)
            assert list(references) == list(candidates)
            return 0.5, [{"All": {"f": 0.5}} for _ in candidates]

    monkeypatch.setattr(captions, "need_java", lambda what: None)
    monkeypatch.setattr(captions, "missing_corenlp", lambda: [])
    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Spice)
    references = {0: ["a"], 1: ["b"]}
    assert captions.spice(references, {0: [""], 1: ["b"]}).tolist() == [0, 0.5]
    assert seen == {1: ["b"]}
    assert captions.spice(references, {0: [""], 1: [""]}).tolist() == [0, 0]


def test_one_item_has_no_standard_error():
    (number,) = metrics.compute({"kind": "vqa"}, frame([("1", "", "a", ["a"], [])]))
    assert number == {
        "metric": "accuracy",
        "subset": "",
        "value": 1,
        "standard_error": None,
        "n": 1,
    }


@pytest.mark.parametrize("said", ["", " ", "\n\t"])
@pytest.mark.parametrize("wanted", [["", "cat"], ["the", "a"], ["?", "!"]])
@pytest.mark.parametrize("scoring", ["exact", "vqa", "gqa", "classification", "multiple-choice"])
def test_who_says_nothing_is_never_right(said, wanted, scoring):
    task = {"kind": "vqa", "scoring": scoring} if len(scoring) < 6 else {"kind": scoring}
    rows = frame([("1", "", said, wanted, [0.5, 0.5])])
    assert metrics.compute(task, rows)[0]["value"] == 0


@pytest.mark.parametrize(("said", "right"), [("the", True), ("The", True), ("a", False)])
def test_answers_of_which_normalising_leaves_nothing_equal_themselves(said, right):
    rows = frame([("1", "", said, ["the"], [])])
    assert metrics.normalised_accuracy(rows).value == right


@pytest.mark.parametrize("scoring", ["exact", "gqa"])
def test_both_unicode_forms_of_an_answer_are_the_same(scoring):
    rows = frame([("1", "", "cafe\u0301", ["caf\u00e9"], [])])
    task = {"kind": "vqa", "scoring": scoring}
    assert metrics.compute(task, rows)[0]["value"] == 1


UNDEFINED = {
    "CIDEr of one picture": ({"kind": "captioning"}, [("a cat", ["a cat"], [])], "tells"),
    "CIDEr of pictures alike": ({"kind": "captioning"}, [("a cat", ["a cat"], [])] * 3, "tells"),
    "one class": ({"kind": "classification"}, [("cat", ["cat"], [3.0])] * 2, "one choice"),
    "one candidate": ({"kind": "retrieval"}, [("", ["x"], [1.0])] * 2, "one candidate"),
    "too few candidates": ({"kind": "corpus-retrieval"}, [("", [], [1, 1])] * 2, "too few"),
    "no item": ({"kind": "vqa"}, [], "no item"),
    "no window": ({"kind": "perplexity"}, [], "no item"),
}


@pytest.mark.parametrize(("task", "items", "why"), UNDEFINED.values(), ids=UNDEFINED)
def test_what_is_not_defined_is_no_number(task, items, why):
    direction = "image-to-text" if "retrieval" in task["kind"] else ""
    rows = [(str(i), direction, *item) for i, item in enumerate(items)]
    number = metrics.compute(task, frame(rows))[0]
    assert number["value"] is None
    assert number["standard_error"] is None
    assert why in number["note"]
    json.dumps(number, allow_nan=False)


def test_recall_is_defined_as_soon_as_one_can_be_missed():
    rows = frame([("1", "image-to-text", "", [], [1, 2]), ("2", "image-to-text", "", [], [1, 6])])
    found = metrics.compute({"kind": "corpus-retrieval"}, rows)
    assert [row["value"] for row in found] == [1, 1, None, None, None, None]


def test_queries_with_one_candidate_are_left_out_and_counted():
    rows = [(str(i), "image-to-text", "", ["x"], v) for i, v in enumerate([[1.0], [0.0, 1.0]])]
    number = metrics.compute({"kind": "retrieval"}, frame(rows))[0]
    assert (number["value"], number["n"]) == (0, 1)
    assert "1 of 2 have one candidate" in number["note"]


NAN = math.nan


@pytest.mark.parametrize("values", [[NAN, 1.0], [1.0, NAN], [NAN, NAN]])
def test_likelihoods_that_are_no_numbers_find_nothing(values):
    rows = [("1", "image-to-text", "", ["x"], values)]
    number = metrics.compute({"kind": "retrieval"}, frame(rows))[0]
    assert number["value"] == 0
    assert "1 of 1 have values that are no numbers" in number["note"]


@pytest.mark.parametrize(
    ("losses", "note"),
    [
        ([2000.0, 2.0], ""),
        ([NAN, 2.0], "1 of 2 windows"),
        ([math.inf, 2.0], ""),
        ([NAN] * 2, "2 of 2"),
    ],
)
def test_the_perplexity_of_a_destroyed_model_is_infinite(losses, note):
    """Exp of 2,002 / 2 is more than a float64 holds (exp 709)."""
    rows = [(str(i), "", "", [], [loss, 1.0]) for i, loss in enumerate(losses)]
    (number,) = metrics.compute({"kind": "perplexity"}, frame(rows))
    assert (number["value"], number["standard_error"]) == ("inf", None)
    assert note in number.get("note", "")
    json.dumps(number, allow_nan=False)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        # Worked by hand from the rules of visualqa.org: ten annotators, min(1, matches / 3) over
        # the nine that are left, averaged.
        ("Yes.", ["yes"] * 9 + ["no"], 1.0),
        ("the red ball", ["red ball"] * 3 + ["ball"] * 7, (3 * 2 / 3 + 7 * 1) / 10),
        ("two", ["2"] * 2 + ["3"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        ("1,000", ["1000"] + ["many"] * 9, 9 * (1 / 3) / 10),
        ("dont know", ["don't know"] * 9 + ["no"], 1.0),
        ("left-hand", ["left hand"] * 4 + ["right"] * 6, 1.0),
        ("what?", ["what"] * 9 + ["no"], 1.0),
        ("3.5", ["3.5"] * 5 + ["35"] * 5, 1.0),
        ("U.S.", ["us"] * 9 + ["no"], 1.0),
        ("none", ["0"] * 9 + ["no"], 1.0),
        ("10:30 (am)", ["10:30 am"] * 9 + ["no"], 1.0),
        ("oclock", ["o'clock"] * 9 + ["no"], 1.0),
        ("blue", ["red"] * 10, 0.0),
        ("cat", ["cat"] * 3, 2 / 3),
        # All annotators wrote the same: neither they nor the prediction are normalised.
        ("yes", ["yes"] * 10, 1.0),
        (" red\tball\n", ["red ball"] * 10, 1.0),
        ("Yes", ["yes"] * 10, 0.0),
        ("yes.", ["yes"] * 10, 0.0),
        ("the ball", ["ball"] * 10, 0.0),
        ("2", ["two"] * 10, 0.0),
        ("caf\u00e9", ["cafe\u0301"] * 10, 1.0),
        # What normalising would leave nothing of equals itself alone.
        ("a", ["a"] * 10, 1.0),
        ("", ["a"] * 10, 0.0),
        ("the", ["a"] * 10, 0.0),
        ("an", ["a"] * 5 + ["the"] * 5, 0.0),
        ("a", ["a"] * 5 + ["the"] * 5, 1.0),
        ("?", ["!"] * 9 + ["cat"], 0.0),
        ("", [""] * 9 + ["the"], 0.0),
        (" \n", ["a"] * 5 + ["?"] * 5, 0.0),
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
    rows = [("1", "a", "The Dog.", ["dog"] * 9 + ["cat"], [])]
    rows += [("2", "a", "cat", ["cat", "dog"] * 5, [])]
    for scoring, expected in (("exact", 0.5), ("gqa", 1.0), ("vqa", 1.0)):
        task = {"kind": "vqa", "scoring": scoring}
        assert [row["value"] for row in metrics.compute(task, frame(rows))] == [expected] * 2


def test_of_gqa_the_prediction_alone_is_normalised():
    """As in LAVIS: an answer with an article, a hyphen or a number word is never right."""
    pairs = [("The car.", "car", 1), ("car", "the car", 0), ("t-shirt", "t-shirt", 0)]
    pairs += [("two", "two", 0), ("two", "2", 1)]
    for said, wanted, right in pairs:
        assert metrics.normalised_accuracy(frame([("1", "", said, [wanted], [])])).value == right


def test_recall_among_all_candidates():
    ranks = {"image-to-text": [1, 3, 11, 1], "text-to-image": [2, 6]}
    rows = [
        (f"{direction}{i}", direction, "", [], [float(rank), 11.0])
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
    texts = {0: ["a", "", "b\r\nc\u2028d"]}
    assert captions.tokenised(texts, "ptb") == {0: ["A", ".", "B C D"]}
    assert seen == {0: [{"caption": "a"}, {"caption": "."}, {"caption": "b c d"}]}


def test_captions_are_also_scored_by_domain():
    rows = [
        (str(i), domain, "a red circle", [f"a red circle {i}"], [])
        for i, domain in enumerate("aab")
    ]
    found = metrics.compute({"kind": "captioning"}, frame(rows))
    assert [row["subset"] for row in found] == ["", "a", "b"]
    assert [row["n"] for row in found] == [3, 2, 1]
    assert [row["value"] is None for row in found] == [False, False, True]
