"""Data and models of others through Snakemake: checked once, towers swapped, no network."""

import json
import re

import pandas as pd
import pytest
import torch
import yaml

from ecoflap import artifacts
from helpers import architectures, layouts, processors, tiny
from helpers.lavis import half_removed, lavis_blip2
from helpers.projects import ROOT, Project


def config(folder):
    """Retrieval with the vision tower of a generation model, as in the paper's Table 1."""
    return {
        "run": ["swapped"],
        "datasets": {
            "small-cc3m": layouts.cc3m(folder / "cc3m"),
            "small-vqa": layouts.vqav2(folder / "vqa"),
            "small-flickr30k": layouts.karpathy(folder / "flickr30k"),
        },
        "models": {
            "generation": {
                "label": "Small",
                "family": "blip2",
                "source": {"folder": str(folder / "generation")},
                "calibration": "small",
            },
            "matching": {
                "label": "Small",
                "family": "blip2-matching",
                "source": {"folder": str(folder / "matching")},
                "calibration": "small-captions",
            },
            "swapped": {
                "label": "Small",
                "family": "blip2-matching",
                "source": {"folder": str(folder / "matching")},
                "towers_from": {"model": "generation", "towers": ["vision"]},
                "calibration": "small-captions",
            },
        },
        "calibrations": {
            "small": {
                "dataset": {"name": "small-cc3m", "split": "train", "view": "captions"},
                "format": "prefix-target",
                "samples": 6,
            },
            "small-captions": {
                "dataset": {"name": "small-flickr30k", "split": "train", "view": "captions"},
                "format": "image-caption",
                "samples": 6,
            },
        },
        "tasks": {
            "small-questions": {
                "label": "Questions",
                "kind": "vqa",
                "dataset": {"name": "small-vqa", "split": "val", "view": "vqa"},
                "scoring": "vqa",
                "prompt": "{question}",
                "max_new_tokens": 3,
            },
            "small-retrieval": {
                "label": "Retrieval",
                "kind": "corpus-retrieval",
                "dataset": {"name": "small-flickr30k", "split": "test", "view": "captions"},
                "shortlist": 4,
            },
        },
        "experiments": {
            "swapped": {
                "kind": "table",
                "title": "Swapped",
                "models": ["generation", "swapped"],
                "dense_from": {"swapped": "matching"},
                "variants": ["wanda", "theirs"],
                "sparsities": ["0.5"],
                "tasks": ["small-questions", "small-retrieval"],
            }
        },
        "variants": {
            "theirs": {
                "label": "Theirs",
                "criterion": "imported",
                "checkpoint": {"file": str(folder / "pruned.pth"), "format": "lavis-blip2"},
            }
        },
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A project that has run on checkpoints and data written into folders of their own."""
    folder = tmp_path_factory.mktemp("real")
    tiny.blip2_model().module.save_pretrained(folder / "generation")
    processors.blip2().save_pretrained(folder / "generation")
    pruned = half_removed(tiny.blip2_model().module)
    torch.save({"model": lavis_blip2(pruned)}, folder / "pruned.pth")
    architectures.ARCHITECTURES["blip2-matching"].build().save_pretrained(folder / "matching")
    processors.blip2_matching().save_pretrained(folder / "matching")
    made = Project(folder)
    (made.folder / "real.yaml").write_text(yaml.safe_dump(config(folder)))
    code, output = made.snakemake(configfile="real.yaml")
    assert code == 0, output
    made.source = folder
    return made


def test_one_table_has_generation_and_retrieval_in_one_row(real):
    frame = pd.read_csv(real.folder / "results/tables/swapped.csv")
    measured = frame[frame["source"] == "measured"]
    pruned = measured[measured["method"] == "Wanda"]
    assert {"Questions", "Retrieval TR@1", "Retrieval IR@10"} <= set(pruned["column"])
    text = (real.folder / "results/tables/swapped.md").read_text()
    (row,) = [line for line in text.splitlines() if "| Wanda |" in line]
    assert row.count("%") == 0
    assert "| Small | Wanda | 0.5 |" in row


def test_a_published_checkpoint_is_a_row_like_any_other(real):
    frame = pd.read_csv(real.folder / "results/tables/swapped.csv")
    row = frame[(frame["method"] == "Theirs") & (frame["column"] == "Removed")]
    assert row["value"].item() == pytest.approx(50, abs=0.5)
    assert {"Questions", "Retrieval TR@1"} <= set(frame[frame["method"] == "Theirs"]["column"])


def test_the_swapped_model_has_the_other_models_tower_and_is_never_pruned_itself(real):
    results = real.folder / "results"
    assert not (results / "pruned/swapped").exists()
    assert not (results / "calibration/matching").exists()
    head = artifacts.read_manifest(results / "models/swapped")["ecoflap"]
    donor = "results/models/generation"
    assert head["inputs"] == {donor: artifacts.file_hash(real.folder / donor)}


def test_every_data_set_is_looked_at_once(real):
    reports = sorted(
        path.relative_to(real.folder / "results/datasets").as_posix()
        for path in real.folder.glob("results/datasets/**/*.json")
    )
    assert reports == [
        "small-cc3m/train/captions.json",
        "small-flickr30k/test/captions.json",
        "small-vqa/val/vqa.json",
    ]
    report = json.loads((real.folder / "results/datasets" / reports[0]).read_text())
    assert report["examples"] == 8


def test_a_damaged_data_set_ends_before_anything_is_evaluated(real):
    path = next((real.source / "vqa").glob("val2014/*.jpg"))
    content = path.read_bytes()
    path.write_bytes(content[:200])
    target = "results/datasets/small-vqa/val/vqa.json"
    try:
        code, _ = real.snakemake("--force", target, configfile="real.yaml")
        log = (real.folder / "results/logs/check_dataset/small-vqa/val/vqa.log").read_text()
    finally:
        path.write_bytes(content)
    assert code != 0
    assert f"the picture {path.parent.name}/{path.name} cannot be read" in log
    assert not (real.folder / target).exists()


def test_a_list_with_a_picture_of_a_task_ends_before_samples_are_drawn(real):
    picture = sorted((real.source / "vqa").glob("val2014/*.jpg"))[0]
    sentences = [{"raw": "a dog"}]
    rows = [{"filename": str(picture), "split": "train", "sentences": sentences}] * 6
    layouts.write(real.source / "flickr30k" / "leaky.json", {"images": rows})
    leaky = config(real.source)
    files = {"captions": "leaky.json", "split": "train"}
    leaky["datasets"]["small-cc3m"] = {
        "layout": "karpathy",
        "folder": str(real.source / "flickr30k"),
        "splits": {"train": files},
    }
    (real.folder / "leaky.yaml").write_text(yaml.safe_dump(leaky))
    target = "results/overlaps/small-cc3m/train/captions.json"
    copied = (real.folder / target).read_text()
    code, output = real.snakemake("--force", target, configfile="leaky.yaml")
    assert code != 0
    assert f"1 of task 'small-questions', such as {picture}" in output
    assert "Traceback" not in output
    real.snakemake(target, configfile="real.yaml")
    assert json.loads((real.folder / target).read_text())["files"] == json.loads(copied)["files"]


def test_a_folder_around_what_a_task_shows_is_refused_by_a_dry_run(real):
    around = config(real.source)
    around["datasets"]["small-cc3m"]["folder"] = str(real.source)
    (real.folder / "around.yaml").write_text(yaml.safe_dump(around))
    code, output = real.snakemake("-n", configfile="around.yaml")
    assert code != 0
    assert f"calibrations.small draws from small-cc3m/train in {real.source}" in output


def test_a_further_task_is_compared_and_draws_no_new_samples(real):
    more = config(real.source)
    more["tasks"]["more"] = {**more["tasks"]["small-questions"], "label": "More"}
    more["experiments"]["swapped"]["tasks"].append("more")
    (real.folder / "more.yaml").write_text(yaml.safe_dump(more))
    planned = real.planned(configfile="more.yaml")
    assert planned["check_overlap"] == 1
    assert not planned.keys() & {"check_dataset", "extract_calibration", "prune_model"}


def test_the_readmes_own_model_runs_as_it_stands(tmp_path):
    made = Project(tmp_path)
    (example,) = re.findall(
        r"`mine.yaml`:\n\n```yaml\n(.*?)```", (ROOT / "docs" / "own-model.md").read_text(), re.S
    )
    assert len(example.splitlines()) <= 12
    (made.folder / "mine.yaml").write_text(example)
    model = made.folder / "path/to/model"
    architectures.ARCHITECTURES["llava"].build().save_pretrained(model)
    processors.llava().save_pretrained(model)
    for split, count in (("train", 32), ("test", 6)):
        layouts.cc3m(made.folder / "path/to/pictures" / split, count)
    code, output = made.snakemake(configfile="mine.yaml")
    assert code == 0, output
    text = (made.folder / "results/tables/mine.md").read_text()
    assert {"Dense", "Wanda", "ECoFLaP (gradnorm)"} <= {
        line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| Mine")
    }
