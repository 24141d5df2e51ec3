"""The easy-VQA data set; expected values come from the package's own lists."""

import builtins

import easy_vqa as package
import pytest

from ecoflap.data.builtin import easy_vqa as data


def test_splits_share_no_picture_and_cover_the_package():
    pictures = {
        split: {row[3] for row in data.questions_of(split)[0]} for split in ("train", "validation")
    }
    assert not pictures["train"] & pictures["validation"]
    assert pictures["train"] | pictures["validation"] == set(package.get_train_image_paths())
    assert len(pictures["validation"]) == 400
    assert min(pictures["validation"]) > max(pictures["train"])
    n_train, n_validation, n_test = (len(data.questions_of(s)[0]) for s in data.SPLITS)
    assert n_train + n_validation == len(package.get_train_questions()[0])
    assert n_test == len(package.get_test_questions()[0])


@pytest.mark.parametrize("split", data.SPLITS)
def test_examples_are_the_packages_questions(split):
    questions, answers, _ = (
        package.get_test_questions() if split == "test" else package.get_train_questions()
    )
    examples = data.load(split=split, view="vqa", limit=200)
    assert len({e["id"] for e in examples}) == 200
    for e in examples:
        number = int(e["id"].split("/")[-1])
        assert e["question"] == questions[number].lower()
        assert e["answers"] == [answers[number]]
        assert e["image"].size == (64, 64)
        assert e["image"].mode == "RGB"


def test_limit_takes_the_head_of_one_fixed_shuffle():
    few = data.load(split="test", view="vqa", limit=20)
    many = data.load(split="test", view="vqa", limit=50)
    assert [e["id"] for e in few] == [e["id"] for e in many[:20]]
    numbers = [int(e["id"].split("/")[-1]) for e in many]
    assert numbers != sorted(numbers)
    assert max(numbers) > 5000


def test_kinds_follow_the_answers():
    colours = {"red", "green", "blue", "yellow", "teal", "brown", "gray", "black"}
    for e in data.load(split="validation", view="vqa", limit=500):
        (answer,) = e["answers"]
        expected = (
            "existence" if answer in ("yes", "no") else "colour" if answer in colours else "shape"
        )
        assert e["kind"] == expected, e["question"]


@pytest.mark.parametrize("arguments", [("calibration", "vqa"), ("test", "captions")])
def test_unknown_names_are_refused(arguments):
    split, view = arguments
    with pytest.raises(ValueError, match="choose from"):
        data.load(split=split, view=view)


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "easy_vqa":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install easy-vqa"):
        data.load(split="test", view="vqa", limit=1)
