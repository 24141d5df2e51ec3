"""Calibration samples: drawn by seed, recorded, the same bytes each time."""

import pytest
import torch
from PIL import Image

from ecoflap import data, models
from ecoflap.data import formats, sampling
from ecoflap.errors import DataError
from ecoflap.plugins import VIEWS
from helpers.configs import ROOT

DEMO = ROOT / "workflow" / "resources" / "demo"
IMAGE, OTHER = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
CAPTIONS = {"name": "scenes", "split": "calibration", "view": "captions"}


@pytest.fixture(scope="module")
def model():
    return models.load(DEMO / "demo-blip2", device="cpu")


def settings(**changes):
    return {"dataset": CAPTIONS, "format": "prefix-target", "samples": 16, **changes}


def test_the_seed_decides_everything(model):
    tensors, manifest = sampling.collect(model, settings(), seed=0)
    again, same = sampling.collect(model, settings(), seed=0)
    _, other = sampling.collect(model, settings(), seed=1)
    assert manifest == same
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert manifest["fingerprint"] != other["fingerprint"]
    assert len({sample["id"] for sample in manifest["samples"]}) == 16


def test_prefix_and_target_are_one_of_the_captions(model):
    _, manifest = sampling.collect(model, settings(), seed=0)
    captions = {e["id"]: e["captions"] for e in data.load(CAPTIONS)}
    for sample in manifest["samples"]:
        assert sample["prompt"]
        assert sample["target"]
        assert f"{sample['prompt']} {sample['target']}" in captions[sample["id"]]


def test_samples_give_a_loss_and_labels_ignore_padding(model):
    tensors, manifest = sampling.collect(model, settings(), seed=0)
    (batch,) = sampling.batches(tensors, 16)
    assert torch.isfinite(model.loss(batch))
    for labels, sample in zip(tensors["labels"], manifest["samples"], strict=True):
        # Words of the target and the end of the sentence.
        assert (labels != -100).sum() == len(sample["target"].split()) + 1


def test_batches_cover_the_samples_in_order():
    samples = {"a": torch.arange(10)}
    assert [b["a"].tolist() for b in sampling.batches(samples, 4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert [b["a"].tolist() for b in sampling.batches(samples, 4, 6)] == [[0, 1, 2, 3], [4, 5]]
    with pytest.raises(DataError, match="11 samples asked for, 10 stored"):
        sampling.batches(samples, 4, 11)


def test_more_samples_than_there_are_is_an_error(model):
    with pytest.raises(DataError, match="1000000 samples asked for"):
        sampling.collect(model, settings(samples=1_000_000), seed=0)


def test_wikitext_comes_from_a_folder(tmp_path):
    (tmp_path / "valid.txt").write_text("one two three")
    dataset = {"name": "wikitext-2", "split": "validation", "view": "text"}
    (example,) = data.load({**dataset, "folder": str(tmp_path)})
    assert example == {"id": "wikitext-2/validation", "text": "one two three"}
    with pytest.raises(DataError, match=r"test\.txt is missing"):
        data.load({**dataset, "split": "test", "folder": str(tmp_path)})
    with pytest.raises(DataError, match="tset"):
        data.load({**dataset, "split": "tset", "folder": str(tmp_path)})


class Recorder:
    """A model that keeps the examples it is asked to encode."""

    def encode(self, examples):
        """Numbers the examples."""
        self.examples = examples
        return {"index": torch.arange(len(examples))}


def encoded(monkeypatch, examples, **calibration_settings):
    monkeypatch.setattr(data, "load", lambda _: examples)
    model = Recorder()
    view = VIEWS.get(calibration_settings["format"], "classes")
    dataset = {**CAPTIONS, "view": view}
    settings = {"dataset": dataset, "samples": len(examples), **calibration_settings}
    tensors, manifest = sampling.collect(model, settings, seed=0)
    assert len(tensors["index"]) == len(examples)
    return {example["id"]: example for example in model.examples}, manifest


def test_questions_come_with_the_answer_of_one_annotator(monkeypatch):
    answers = ["a", "b", "c", "d"]
    rows = [
        {"id": str(i), "image": IMAGE, "question": "what?", "answers": answers} for i in range(20)
    ]
    found, manifest = encoded(monkeypatch, rows, format="question-answer")
    assert {e["prompt"] for e in found.values()} == {"what?"}
    assert {e["target"] for e in found.values()} == set(answers)  # 20 draws of 4
    assert all(set(sample) == {"id", "prompt", "target"} for sample in manifest["samples"])


def test_texts_are_cut_within_their_first_fifty_words(monkeypatch):
    words = [f"w{i}" for i in range(80)]
    rows = [{"id": str(i), "text": " ".join(words)} for i in range(20)]
    found, _ = encoded(monkeypatch, rows, format="text-prefix-target")
    for example in found.values():
        assert f"{example['prompt']} {example['target']}" == " ".join(words[:50])
    assert len({example["prompt"] for example in found.values()}) > 10


def test_classes_become_captions_and_pairs_stay_together(monkeypatch):
    rows = [{"id": "1", "image": IMAGE, "label": "dog", "classes": ["cat", "dog"]}]
    found, manifest = encoded(monkeypatch, rows, format="image-label", prompt="a {label}.")
    assert found["1"]["caption"] == manifest["samples"][0]["caption"] == "a dog."
    rows = [{"id": "1", "images": [IMAGE, OTHER], "text": "Both are red.", "label": "True"}]
    found, _ = encoded(monkeypatch, rows, format="image-pair")
    assert (found["1"]["left"], found["1"]["right"]) == (IMAGE, OTHER)
    assert (found["1"]["text"], found["1"]["label"]) == ("Both are red.", "True")


@pytest.mark.parametrize(
    ("example", "form"),
    [
        ({"image": IMAGE, "captions": ["one", ""][1:]}, "prefix-target"),
        ({"image": IMAGE, "captions": []}, "image-caption"),
        ({"image": IMAGE, "question": "what?", "answers": [" "]}, "question-answer"),
        ({"text": "  "}, "text-prefix-target"),
    ],
)
def test_a_sample_without_words_is_named(monkeypatch, example, form):
    with pytest.raises(DataError, match="of the sample 17 is empty"):
        encoded(monkeypatch, [{"id": "17", **example}], format=form)


def test_a_prompt_stands_before_a_whole_caption_or_around_a_question():
    picture = Image.new("RGB", (2, 2))
    captioned = {"id": "1", "image": picture, "captions": ["a red ball"]}
    made = formats.prepare(captioned, {"format": "prompt-caption", "prompt": "see:"}, 0)
    assert (made["prompt"], made["target"]) == ("see:", "a red ball")
    asked = {"id": "2", "image": picture, "question": "what?", "answers": ["a ball"]}
    entry = {"format": "question-answer"}
    assert formats.prepare(asked, entry, 0)["prompt"] == "what?"
    made = formats.prepare(asked, {**entry, "prompt": "Q: {question} A:"}, 0)
    assert (made["prompt"], made["target"]) == ("Q: what? A:", "a ball")
