"""Targets that the dense model writes itself."""

import pytest
import torch

from ecoflap import models
from ecoflap.data import sampling
from ecoflap.errors import ConfigError, DataError
from helpers.configs import ROOT

DEMO = ROOT / "workflow" / "resources" / "demo"
DATASET = {"name": "scenes", "split": "calibration", "view": "vqa"}
ASKED = {
    "dataset": DATASET,
    "format": "question-answer",
    "prompt": "question: {question} answer:",
    "samples": 20,
}
GENERATED = {**ASKED, "targets": "generated", "max_new_tokens": 4}


@pytest.fixture(scope="module")
def model():
    return models.load(DEMO / "demo-blip2", device="cpu")


@pytest.fixture(scope="module")
def examples(model):
    return {example["id"]: example for example in sampling.examples_of(model, ASKED)}


def test_targets_are_what_the_model_answers_alone(model, examples):
    tensors, manifest = sampling.collect(model, GENERATED, seed=0)
    _, given = sampling.collect(model, ASKED, seed=0)
    assert len(manifest["samples"]) == 20
    for row, (sample, usual) in enumerate(zip(manifest["samples"], given["samples"], strict=True)):
        picture = examples[sample["id"]]["image"].open()
        (answer,) = model.generate([picture], [sample["prompt"]], max_new_tokens=4)
        assert sample["target"] == answer
        assert (sample["id"], sample["prompt"], sample["reference"]) == (
            usual["id"],
            usual["prompt"],
            usual["target"],
        )
        tokens = model.processor.tokenizer(answer)["input_ids"]
        labels = tensors["labels"][row]
        assert labels[labels != -100].tolist() == tokens
    assert manifest["fingerprint"] != given["fingerprint"]


def test_the_same_seed_gives_the_same_bytes(model):
    settings = {**GENERATED, "samples": 6}
    tensors, manifest = sampling.collect(model, settings, seed=1)
    again, same = sampling.collect(model, settings, seed=1)
    assert manifest == same
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


class Silent:
    """A model that answers, but for the questions that some samples ask."""

    family, offload = "blip2", "none"

    def __init__(self, silent):
        self.silent = silent
        self.asked = []

    def generate(self, images, prompts, *, max_new_tokens):
        """Answers with the prompt."""
        assert max_new_tokens == 40
        self.asked += prompts
        return [" " if prompt in self.silent else f"so {prompt}" for prompt in prompts]

    def encode(self, samples):
        """Numbers the samples."""
        return {"index": torch.arange(len(samples))}


def text_examples(monkeypatch, count):
    picture = sampling.data.load(DATASET)[0]["image"]
    rows = [
        {"id": str(i), "image": picture, "question": f"q{i}", "answers": ["yes"]}
        for i in range(count)
    ]
    monkeypatch.setattr(sampling.data, "load", lambda _: rows)
    settings = {**GENERATED, "samples": 5, "prompt": "{question}"}
    settings.pop("max_new_tokens")
    return settings


def test_a_prompt_without_an_answer_makes_place_for_the_next(monkeypatch):
    settings = text_examples(monkeypatch, 12)
    _, usual = sampling.collect(Silent(()), settings, seed=0)
    drawn = [sample["id"] for sample in usual["samples"]]
    silent = {f"q{drawn[1]}", f"q{drawn[3]}"}
    tensors, manifest = sampling.collect(Silent(silent), settings, seed=0)
    found = [sample["id"] for sample in manifest["samples"]]
    assert found[:3] == [drawn[0], drawn[2], drawn[4]]
    assert len(tensors["index"]) == len(set(found)) == 5
    assert not set(found[3:]) & set(drawn)
    _, further = sampling.held_out(Silent(silent), {**settings, "held_out": 4}, seed=0)
    others = [sample["id"] for sample in further["samples"]]
    assert len(set(others)) == 4
    assert not set(others) & {*found, drawn[1], drawn[3]}


def test_too_few_answers_are_told(monkeypatch):
    settings = text_examples(monkeypatch, 6)
    silent = Silent({"q0", "q1", "q2"})
    with pytest.raises(DataError, match="5 samples with an answer.*asked for, 3 found"):
        sampling.collect(silent, settings, seed=0)
    assert len(silent.asked) == len(set(silent.asked)) == 6


def test_models_that_do_not_generate_are_refused_by_name():
    clip = models.load(DEMO / "demo-clip", device="cpu")
    captions = {"dataset": {**DATASET, "view": "captions"}, "format": "prefix-target", "samples": 2}
    with pytest.raises(DataError, match="targets: generated with the family clip"):
        sampling.collect(clip, {**captions, "targets": "generated"}, seed=0)


def test_a_model_whose_weights_wait_elsewhere_is_refused():
    large = models.load(DEMO / "demo-blip2", device="cpu", offload="cpu")
    with pytest.raises(DataError, match="targets: generated with offload='cpu'"):
        sampling.collect(large, GENERATED, seed=0)


def test_formats_without_a_prompt_are_refused_by_name(model):
    captions = {"dataset": {**DATASET, "view": "captions"}, "format": "image-caption", "samples": 2}
    with pytest.raises(ConfigError, match="generated with the format image-caption"):
        sampling.collect(model, {**captions, "targets": "generated"}, seed=0)
