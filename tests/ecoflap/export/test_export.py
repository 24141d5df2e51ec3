"""Exports: the card against the hub's schema, loaders without this package."""

import json
import os
import re
import shutil
import subprocess
import sys

import jsonschema
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import ecoflap
from ecoflap import artifacts
from ecoflap.errors import ArtifactError
from ecoflap.export import card, precision
from ecoflap.masks import pack_mask
from ecoflap.pruning import changes, whole_model
from ecoflap.scores import matrix_table
from ecoflap_pipeline import params, points, targets
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.report import model_card
from helpers import tiny
from helpers.configs import ROOT, merged, shipped

DEMO = ROOT / "workflow" / "resources" / "demo" / "demo-clip"
# The hub's description of a model card's metadata (hub-docs, modelcard.md), and the pattern with
# which its server refuses names of data sets.
WORD = {"type": "string", "minLength": 1}
RESULT = {
    "type": "object",
    "required": ["task", "dataset", "metrics"],
    "additionalProperties": False,
    "properties": {
        "task": {
            "type": "object",
            "required": ["type"],
            "additionalProperties": False,
            "properties": {"type": {"type": "string", "pattern": "^[a-z-]+$"}, "name": WORD},
        },
        "dataset": {
            "type": "object",
            "required": ["type", "name"],
            "additionalProperties": False,
            "properties": {
                "type": {"type": "string", "pattern": r"^([\w-]+/)?[\w.-]+$"},
                **{key: WORD for key in ("name", "config", "split", "revision")},
            },
        },
        "metrics": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "additionalProperties": False,
                "properties": {"type": WORD, "value": {"type": "number"}, "name": WORD},
            },
        },
    },
}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["library_name", "tags"],
    "properties": {
        "library_name": WORD,
        "license": {"type": "string", "pattern": "^[a-z0-9.-]+$"},
        "license_name": {"type": "string", "pattern": "^[a-z0-9.-]+$"},
        "base_model": {"type": "string", "pattern": r"^[\w.-]+/[\w.-]+$"},
        "tags": {"type": "array", "items": WORD},
        "model-index": {
            "type": "array",
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "results"],
                "additionalProperties": False,
                "properties": {"name": WORD, "results": {"type": "array", "items": RESULT}},
            },
        },
    },
}


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """demo-clip without the half of its smallest weights, and the folder where it was saved."""
    folder = tmp_path_factory.mktemp("saved")
    model = ecoflap.load(DEMO, device="cpu")
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ecoflap.prune(model, [], plan, criterion="magnitude")
    model.save(folder)
    return model, folder


def test_the_lines_of_the_card_load_the_saved_model(pruned):
    model, folder = pruned
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    ids = torch.arange(5, 13).reshape(2, 4)
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    size = model.module.config.vision_config.image_size
    pixels = torch.nn.functional.interpolate(pixels, size)
    save_file({"input_ids": ids, "pixel_values": pixels}, folder / "inputs.pt")
    code += """
import sys
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
assert "ecoflap" not in sys.modules
logits = model.eval()(**load_file("inputs.pt")).logits_per_image
save_file({"logits": logits.detach().contiguous()}, "logits.pt")
"""
    run(code, folder)
    with torch.no_grad():
        expected = model.module(input_ids=ids, pixel_values=pixels).logits_per_image
    assert torch.equal(load_file(folder / "logits.pt")["logits"], expected)


def test_the_card_counts_the_zeros_of_the_file(pruned):
    model, folder = pruned
    stored = load_file(folder / "model.safetensors")
    text = (folder / "README.md").read_text()
    for tower in ("vision", "language"):
        weights = [stored[f"{m.name}.weight"] for m in model.matrices() if m.tower == tower]
        zeros = sum(int((w == 0).sum()) for w in weights)
        total = sum(w.numel() for w in weights)
        assert f"| {tower} | {zeros:,} | {total:,} | {zeros / total:.1%} |" in text
    assert f"| {sum(w.numel() for w in stored.values()):,} |" in text
    assert metadata(text)["library_name"] == "transformers"
    assert "`demo-clip`, pruned with" in text
    assert "- criterion: magnitude\n- pattern: unstructured" in text
    assert str(DEMO.parent) not in text


def test_the_card_tells_the_tokens_per_feature_of_the_matrix_with_the_fewest(tmp_path):
    model = tiny.clip_model()
    assert "Tokens per feature" not in card.text(facts(), model)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    report = ecoflap.prune(model, tiny.batches(model), plan, criterion="wanda")
    # 2 batches of 3 pictures of 5 tokens, and of 3 texts of 16 real tokens; 16 or 24 features.
    assert report["tokens_per_feature"].max() == 2 * 16 / 16
    text = card.text(facts(), model)
    assert re.search(r"\| vision \| .* \| 1\.25 \|\n", text)
    assert re.search(r"\| language \| .* \| 1\.33 \|\n", text)
    assert re.search(r"\| all prunable \| .* \| 1\.25 \|\n", text)
    head = artifacts.header("layers", rule="test", code="", config={})
    artifacts.write_table(tmp_path / "layers.parquet", report, head)
    donor = tiny.clip_model()
    donor.masks = {name: mask for name, mask in model.masks.items() if "vision" in name}
    model_card.note_tokens(donor, tmp_path / "layers.parquet")
    assert re.search(r"\| language \| .* \|  \|\n", card.text(facts(), donor))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_card_tells_the_number_format(dtype, tmp_path):
    model = ecoflap.load(DEMO, device="cpu")
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ecoflap.prune(model, [], plan, criterion="magnitude")
    model.module.to(dtype)
    model.save(tmp_path / "dense")
    text = (tmp_path / "dense" / "README.md").read_text()
    assert f"dense tensors of {str(dtype).removeprefix('torch.')} with zeros" in text


def test_weights_are_stored_in_16_bits_only_where_that_loses_nothing(pruned):
    model = ecoflap.load(DEMO, device="cpu")
    precision.shorten(model, DEMO)
    dense = load_file(DEMO / "model.safetensors")
    assert {p.dtype for p in model.module.parameters()} == {torch.float16}
    shared = {n: t for n, t in model.module.state_dict().items() if n in dense}
    assert all(t.dtype == dense[n].dtype and torch.equal(t, dense[n]) for n, t in shared.items())
    updated = ecoflap.load(DEMO, device="cpu")
    weight = next(updated.matrices()).module.weight
    with torch.no_grad():
        weight[0, 0] = 1 / 3
    precision.shorten(updated, DEMO)
    assert weight.dtype == torch.float32
    assert weight[0, 0] == torch.tensor(1 / 3)


def facts(**given):
    shown = {
        "name": "A model, Wanda, sparsity 0.5",
        "base": "owner/model",
        "revision": "0" * 40,
        "licence": "Apache-2.0",
        "method": {"sparsity": "0.5", "criterion": "wanda", "pattern": "2:4"},
        "calibration": "32 samples",
        "results": [
            card.Result(
                name, "classification", ("scenes", "test", view), "accuracy", 91.25, 0.5, dense
            )
            for name, view, dense in [
                ("Shape", "shape", (95.5, 0.25)),
                ("Colour", "colour", (96.5, float("nan"))),
                ("Again", "colour", None),
            ]
        ],
    }
    return card.Facts(**{**shown, **given})


def metadata(text):
    found = yaml.safe_load(text.split("---\n")[1])
    jsonschema.validate(found, METADATA)
    return found


def test_the_metadata_are_those_of_the_hub_and_survive_its_reader():
    text = card.text(facts(), tiny.clip_model())
    found = metadata(text)
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "owner/model"
    assert found["library_name"] == "transformers"
    (index,) = found["model-index"]
    views = [result["dataset"]["config"] for result in index["results"]]
    assert views == ["shape", "colour"]  # the hub joins what has one data set
    names = [metric["name"] for result in index["results"] for metric in result["metrics"]]
    assert names == ["Shape accuracy", "Colour accuracy", "Again accuracy"]
    again = ModelCard(text)
    assert again.data.eval_results[0].metric_value == 91.25
    assert str(again) == text
    assert "| Shape | accuracy | 95.5 ± 0.2 | 91.2 ± 0.5 |" in text
    assert "| Colour | accuracy | 96.5 | 91.2 ± 0.5 |" in text
    assert "| Again | accuracy |  | 91.2 ± 0.5 |" in text
    assert "to_semi_structured" in text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", {"license": "mit"}),
        (
            "MIT; OPT for non-commercial research",
            {"license": "other", "license_name": "mit-opt-for-non-commercial-research"},
        ),
        (None, {}),
    ],
)
def test_a_licence_that_the_hub_does_not_know_keeps_its_words(licence, expected):
    text = card.text(facts(licence=licence, base="some/deeper/folder"), tiny.llama_model())
    found = metadata(text)
    assert {key: value for key, value in found.items() if "license" in key} == expected
    assert "base_model" not in found
    assert (licence or "not stated") in text


def test_the_card_of_a_fine_tuned_model_tells_what_it_learned_from():
    config = merged({})
    configuration.check(config, ROOT)
    read = params.export_checkpoint(
        config, model="demo-blip2", variant="ecoflap-finetuned", sparsity="0.6", seed="0"
    )
    shown = model_card.facts(read["card"], [], dtype="float32", seed=0, manifest=None)
    told = shown.method
    assert told["fine-tuned from"] == config["variants"]["ecoflap-gradnorm"]["label"]
    assert told["fine-tuning"].startswith("AdamW, cosine to zero, method full, ")
    assert told["fine-tuning"].endswith(", seed 0")
    assert "`demo-blip2`, pruned and fine-tuned with" in card.text(shown, tiny.clip_model())
    parts = told["fine-tuned on"].split("; ")
    assert len(parts) == len(config["finetuning"]["demo"]["data"])
    expected = "4800 samples of 16000 random examples of easy-vqa, split train, vqa, as question-"
    assert any(part.startswith(expected) for part in parts)


def test_a_model_that_was_fine_tuned_in_python_says_so_on_its_card(tmp_path):
    model = ecoflap.load(DEMO, device="cpu")
    dataset = {"name": "scenes", "split": "train", "view": "captions", "limit": 8}
    settings = {
        "method": "sparselora",
        "rank": 2,
        "data": [{"dataset": dataset, "format": "image-caption", "samples": 8}],
        "epochs": 1,
        "learning_rate": 0.001,
        "warmup": 0,
        "weight_decay": 0.05,
        "batch_size": 4,
        "precision": "float32",
    }
    whole_model.prune_global_magnitude(model, "0.5")
    ecoflap.finetune(model, settings, seed=7)
    model.save(tmp_path / "one")
    text = (tmp_path / "one" / "README.md").read_text()
    assert "`demo-clip`, pruned and fine-tuned with" in text
    assert "- criterion: global-magnitude" in text
    assert "- fine-tuning: AdamW, cosine to zero, method sparselora, rank 2, epochs 1" in text
    assert "seed 7" in text
    assert "8 samples of 8 random examples of scenes, split train, captions, as image-cap" in text
    again = ecoflap.load(tmp_path / "one", device="cpu")  # whose masks nobody knows
    again.history += [("fine-tuning", {**settings, "seed": seed}) for seed in (8, 9)]
    again.save(tmp_path / "two")
    text = (tmp_path / "two" / "README.md").read_text()
    assert re.search("- fine-tuning: .*, seed 8\n", text)
    assert re.search(r"- fine-tuning \(step 2\): .*, seed 9\n", text)


def test_samples_that_are_all_but_the_held_out_ones_are_told_so():
    config = merged(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()))
    configuration.check(config, ROOT)
    read = params.export_checkpoint(
        config, model="blip-vqa", variant="ecoflap-zeroth-finetuned", sparsity="0.5", seed="0"
    )
    told = model_card.facts(read["card"], [], dtype="float32", seed=0, manifest=None).method
    assert told["fine-tuned on"].startswith("all but 512 samples of vqav2, split train")


@pytest.mark.parametrize(("sparsity", "suite"), [("0.35", "extra"), ("0.45", "demo-generation")])
def test_the_card_shows_what_experiments_measure_the_selected_ones_first(sparsity, suite):
    config = shipped()
    config["tasks"]["extra"] = {**config["tasks"]["captions"], "label": "Extra"}
    table = {"kind": "table", "title": "T", "models": ["demo-blip2"], "variants": ["wanda"]}
    config["experiments"]["one"] = {**table, "sparsities": ["0.35"], "tasks": ["extra"]}
    config["experiments"]["two"] = {**table, "sparsities": ["0.35", "0.45"], "tasks": ["captions"]}
    config["run"] = ["one"]
    configuration.check(config, ROOT)
    point = points.Point("demo-blip2", "wanda", 0, sparsity)
    assert targets.suites_asked(config, point) == [suite]


def stored_changes(folder, model, dense):
    head = artifacts.header("pruned", rule="test", code="", config={}, dense=dense)
    model.masks = {
        m.name: pack_mask(torch.zeros_like(m.module.weight, dtype=torch.bool))
        for m in model.matrices()
    }
    changes.save_changes(model, folder / "changes.safetensors", head, updates_weights=False)
    return folder / "changes.safetensors"


def test_changes_that_do_not_belong_to_the_checkpoint_are_refused(tmp_path):
    shutil.copytree(DEMO, tmp_path / "dense")
    head = artifacts.header("model", rule="test", code="", config={})
    artifacts.write_manifest(tmp_path / "dense", head, [])
    model = ecoflap.load(tmp_path / "dense", device="cpu")
    right = artifacts.file_hash(tmp_path / "dense")
    own = stored_changes(tmp_path, model, right)
    changes.load_changed(tmp_path / "dense", own, device="cpu")
    other = stored_changes(tmp_path, model, "another")
    with pytest.raises(ArtifactError, match="made from another checkpoint"):
        changes.load_changed(tmp_path / "dense", other, device="cpu")
    smaller = stored_changes(tmp_path, tiny.clip_model(), right)
    with pytest.raises(ArtifactError, match="fits|does not fit"):
        changes.load_changed(tmp_path / "dense", smaller, device="cpu")
    config = tmp_path / "dense" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "logit_scale": 1}))
    with pytest.raises(ArtifactError, match="config.json is changed"):
        changes.load_changed(tmp_path / "dense", own, device="cpu")
