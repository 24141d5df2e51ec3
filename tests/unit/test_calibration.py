"""Calibration samples: drawn by seed, recorded, the same bytes each time."""

from pathlib import Path

import pytest
import torch
from ecoflap import calibration, data, models
from ecoflap.errors import DataError

DEMO = Path(__file__).parents[2] / "workflow" / "resources" / "demo"
CAPTIONS = {"name": "scenes", "split": "calibration", "view": "captions"}


@pytest.fixture(scope="module")
def model():
    return models.load(DEMO / "demo-blip2", device="cpu")


def settings(**changes):
    return {"dataset": CAPTIONS, "format": "prefix-target", "samples": 16, **changes}


def test_the_seed_decides_everything(model):
    tensors, manifest = calibration.collect(model, settings(), seed=0)
    again, same = calibration.collect(model, settings(), seed=0)
    _, other = calibration.collect(model, settings(), seed=1)
    assert manifest == same
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert manifest["fingerprint"] != other["fingerprint"]
    assert len({sample["id"] for sample in manifest["samples"]}) == 16


def test_prefix_and_target_are_one_of_the_captions(model):
    _, manifest = calibration.collect(model, settings(), seed=0)
    captions = {e["id"]: e["captions"] for e in data.load(CAPTIONS)}
    for sample in manifest["samples"]:
        assert sample["prompt"]
        assert sample["target"]
        assert f"{sample['prompt']} {sample['target']}" in captions[sample["id"]]


def test_samples_give_a_loss_and_labels_ignore_padding(model):
    tensors, manifest = calibration.collect(model, settings(), seed=0)
    (batch,) = calibration.batches(tensors, 16)
    assert torch.isfinite(model.loss(batch))
    for labels, sample in zip(tensors["labels"], manifest["samples"], strict=True):
        # Words of the target and the end of the sentence.
        assert (labels != -100).sum() == len(sample["target"].split()) + 1


def test_batches_cover_the_samples_in_order():
    samples = {"a": torch.arange(10)}
    assert [b["a"].tolist() for b in calibration.batches(samples, 4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert [b["a"].tolist() for b in calibration.batches(samples, 4, 6)] == [[0, 1, 2, 3], [4, 5]]
    with pytest.raises(DataError, match="11 samples asked for, 10 stored"):
        calibration.batches(samples, 4, 11)


def test_more_samples_than_there_are_is_an_error(model):
    with pytest.raises(DataError, match="1000000 calibration samples asked for"):
        calibration.collect(model, settings(samples=1_000_000), seed=0)


def test_wikitext_comes_from_a_folder(tmp_path):
    (tmp_path / "valid.txt").write_text("one two three")
    dataset = {"name": "wikitext-2", "split": "validation", "view": "text"}
    (example,) = data.load({**dataset, "folder": str(tmp_path)})
    assert example == {"id": "wikitext-2/validation", "text": "one two three"}
    with pytest.raises(DataError, match=r"test\.txt is missing"):
        data.load({**dataset, "split": "test", "folder": str(tmp_path)})
    with pytest.raises(DataError, match="tset"):
        data.load({**dataset, "split": "tset", "folder": str(tmp_path)})
