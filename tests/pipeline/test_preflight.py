"""What is missing is said before any job; what is fetched is what a run without network reads."""

import shutil
from pathlib import Path

import pytest

from ecoflap.errors import DataError
from ecoflap.evaluation import captions
from ecoflap_pipeline import downloads, preflight, targets
from ecoflap_pipeline.config import check as configuration
from helpers import layouts
from helpers.configs import ROOT, shipped


@pytest.fixture
def config(tmp_path):
    """The demo's configuration with an experiment on data that lie in a folder."""
    found = shipped()
    found["datasets"]["small"] = layouts.vqav2(tmp_path / "vqa")
    found["tasks"]["mine"] = {
        "label": "Mine",
        "kind": "vqa",
        "dataset": {"name": "small", "split": "val", "view": "vqa"},
        "prompt": "{question}",
        "max_new_tokens": 3,
    }
    found["experiments"]["mine"] = {
        "kind": "table",
        "title": "Mine",
        "models": ["demo-blip2"],
        "variants": ["wanda"],
        "sparsities": ["0.5"],
        "tasks": ["mine"],
    }
    found["run"] = ["mine"]
    configuration.check(found, ROOT)
    return found


def states(config):
    return {need.what: need.state for need in preflight.needs(config)}


def test_what_is_here_is_here(config):
    found = states(config)
    assert found.pop("disk space") == "here"
    assert set(found) == {"model demo-blip2", "data small, val", "data scenes, calibration"}
    assert set(found.values()) == {"here"}


def test_a_missing_file_of_a_data_set_is_named_with_its_licence(config):
    config["datasets"]["small"]["licence"] = "CC BY"
    file = Path(config["datasets"]["small"]["folder"], "v2_mscoco_val2014_annotations.json")
    file.unlink()
    (need,) = [need for need in preflight.needs(config) if need.state == "missing"]
    assert need.what == "data small, val"
    assert str(file) in need.detail
    assert "CC BY" in need.detail
    text = preflight.table(preflight.needs(config))
    assert text.splitlines()[2].startswith("| missing | data small, val |")
    assert "data_folders" in text


def test_java_and_corenlp_are_looked_for_where_captions_need_them(config, monkeypatch):
    config["tasks"]["captions"] |= {"metrics": ["cider", "spice"], "tokenizer": "ptb"}
    config["experiments"]["mine"]["tasks"] = ["captions"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = states(config)
    assert found["Java"] == found["CoreNLP for SPICE"] == "missing"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(captions, "missing_corenlp", list)
    found = states(config)
    assert found["Java"] == found["CoreNLP for SPICE"] == "here"


def test_a_hub_model_is_missing_only_where_the_hub_may_not_be_asked(config, monkeypatch):
    config["models"]["demo-blip2"]["source"] = {"hub": "owner/name", "revision": "0" * 40}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert states(config)["model demo-blip2"] == "unknown"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert states(config)["model demo-blip2"] == "missing"


def test_a_full_disk_is_told(config, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert states(config)["disk space"] == "missing"


def test_all_that_a_run_without_network_reads_is_fetched(config):
    config["experiments"]["mine"]["tasks"] += ["captions"]
    config["tasks"]["captions"]["metrics"] = ["spice"]
    assert set(targets.downloads(config, "mine")) == {
        "results/models/demo-blip2",
        "results/datasets/small/val/vqa.json",
        "results/downloads/captions.json",
    }
    config["run"] = ["smollm2-quick"]
    assert set(targets.collect(config, targets.downloads)) == {
        "results/models/smollm2-135m",
        "results/downloads/wikitext-2.json",
    }


def test_a_task_fetches_what_it_reads(tmp_path):
    (tmp_path / "test.txt").write_text("some words")
    dataset = {"name": "wikitext-2", "split": "test", "view": "text", "folder": str(tmp_path)}
    task = {"kind": "perplexity", "dataset": dataset}
    assert downloads.fetch(task) == ["the data set wikitext-2"]
    with pytest.raises(DataError, match="cannot fetch the task 'no_such_task'"):
        downloads.fetch({"kind": "multiple-choice", "task": "no_such_task", "shots": 5})
