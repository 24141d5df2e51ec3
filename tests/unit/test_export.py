"""Exports: bits of the compact file, the loader alone, the card against the hub's schema."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ecoflap
import jsonschema
import pandas as pd
import pytest
import tiny
import torch
import yaml
from configs import ROOT, SCHEMAS, merged, shipped
from ecoflap import (
    artifacts,
    baselines,
    card,
    compact,
    export,
    pruning,
    settings,
    targets,
    unpack,
)
from ecoflap import config as configuration
from ecoflap.bench.__main__ import main
from ecoflap.errors import ArtifactError
from ecoflap.scores import matrix_table
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

DEMO = Path(__file__).parents[2] / "workflow" / "resources" / "demo" / "demo-clip"
INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}
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


def half(dtype, rows=33, columns=41):
    """Weights of which about half are 0, among the others -0.0 and NaNs with several payloads."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    weight[torch.rand(rows, columns, generator=generator) < 0.5] = 0
    bits = weight.view(INTEGERS[dtype])
    limits = torch.iinfo(bits.dtype)
    bits[0, :4] = torch.tensor([limits.min, limits.max, limits.max - 2, -2], dtype=bits.dtype)
    return weight


def same_bits(one, other):
    size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.dtype == other.dtype and torch.equal(one.view(size), other.view(size))


@pytest.fixture
def packed(tmp_path):
    """A folder with a file of every kind of tensor, and its compact copy."""
    tensors = {str(dtype): half(dtype) for dtype in INTEGERS}
    tensors |= {
        "dense": torch.ones(4, 4),
        "ids": torch.arange(8),
        "scalar": torch.tensor(0.0),
        "empty": torch.zeros(0, 3),
        "zeros": torch.zeros(5, 3, dtype=torch.float16),
        "flags": torch.tensor([True, False]),
    }
    (tmp_path / "dense").mkdir()
    save_file(tensors, tmp_path / "dense" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "dense" / "config.json").write_text("{}")
    compact.write(tmp_path / "dense", tmp_path / "compact")
    return tmp_path, tensors


def test_a_round_trip_keeps_every_bit_and_the_file_itself(packed):
    folder, tensors = packed
    loaded = unpack.load(folder / "compact" / "model.compact.safetensors")
    assert set(loaded) == set(tensors)
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())
    (written,) = unpack.unpack(folder / "compact", folder / "again")
    assert written.read_bytes() == (folder / "dense" / "model.safetensors").read_bytes()
    compact_file = folder / "compact" / "model.compact.safetensors"
    assert written.stat().st_mode == compact_file.stat().st_mode
    assert (folder / "compact" / "config.json").read_text() == "{}"
    packed_bytes = (folder / "compact" / "model.compact.safetensors").read_bytes()
    assert str(folder).encode() not in packed_bytes  # it is made to be given away


def test_the_benchmark_tells_the_bytes_of_both_forms(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command line sets it; restored afterwards
    folder, _ = packed
    main(["compact", str(folder / "dense"), "--threads", "1", "--results", str(tmp_path / "found")])
    (row,) = pd.read_csv(tmp_path / "found" / "compact.csv").itertuples()
    small = (folder / "compact" / "model.compact.safetensors").stat().st_size
    whole = (folder / "dense" / "model.safetensors").stat().st_size
    assert row.compact_to_dense == pytest.approx(small / whole, rel=0.02)
    assert row.dense_mib == pytest.approx(whole / 2**20)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_matrix_takes_a_bit_per_weight_and_its_values(dtype):
    weight = half(dtype)
    values, mask = compact.packed(weight)
    bits = weight.view(INTEGERS[dtype])
    assert len(values) == sum(value != 0 for value in bits.flatten().tolist())
    assert mask.numel() == math.ceil(weight.numel() / 8)
    assert compact.packed(torch.ones(8, 8, dtype=dtype)) is None  # it would grow


def test_half_of_16_bits_take_56_percent():
    weight = torch.ones(64, 64, dtype=torch.bfloat16)
    weight[:, ::2] = 0
    values, mask = compact.packed(weight)
    assert (2 * len(values) + len(mask)) / (2 * weight.numel()) == 0.5 + 1 / 16


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


def test_the_loader_needs_torch_and_safetensors_alone(packed):
    folder, _ = packed
    code = """
import runpy, sys
runpy.run_path("unpack.py", run_name="__main__")
assert not {"ecoflap", "transformers", "pandas", "pyarrow", "huggingface_hub"} & set(sys.modules)
"""
    assert "model.safetensors" in run(code, folder / "compact")
    dense = (folder / "dense" / "model.safetensors").read_bytes()
    assert (folder / "compact" / "model.safetensors").read_bytes() == dense


@pytest.mark.parametrize("harm", ["cut short", "flipped", "another file"])
def test_a_damaged_compact_file_is_refused_and_nothing_written(packed, harm):
    folder, _ = packed
    path = folder / "compact" / "model.compact.safetensors"
    content = bytearray(path.read_bytes())
    if harm == "another file":
        content = bytearray((folder / "dense" / "model.safetensors").read_bytes())
    elif harm == "flipped":
        content[-1] ^= 1
    else:
        del content[-100:]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not whole. Allowed: .* Copy it again"):
        unpack.unpack(folder / "compact", folder / "again")
    assert not list((folder / "again").iterdir())


def test_nothing_is_written_over(packed):
    folder, _ = packed
    before = (folder / "dense" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="is there. Allowed"):
        unpack.unpack(folder / "compact", folder / "dense")
    with pytest.raises(ArtifactError, match="is not empty"):
        compact.write(folder / "compact", folder / "dense")
    assert (folder / "dense" / "model.safetensors").read_bytes() == before


def test_a_folder_without_a_compact_file_is_told(tmp_path):
    with pytest.raises(ValueError, match="no [*].compact.safetensors in"):
        unpack.unpack(tmp_path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("target", ["file", "file/below", "closed/below", "nowhere"])
def test_a_target_that_cannot_be_written_is_told_in_one_line(packed, tmp_path, target):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "closed").symlink_to("/proc")  # where root may write nothing either
    folder, _ = packed
    script = [sys.executable, "-I", folder / "compact" / "unpack.py", tmp_path / target]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Allowed: a folder, new" in done.stderr or "cannot unpack into" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_no_half_of_a_file(packed, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(unpack, "save_file", full)
    with pytest.raises(SafetensorError):
        unpack.unpack(packed[0] / "compact", tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


def test_a_failure_at_the_last_of_several_files_leaves_none(packed, tmp_path):
    source, made = tmp_path / "source", tmp_path / "made"
    shutil.copytree(packed[0] / "compact", source)
    (file,) = source.glob("*.compact.safetensors")
    second = source / "second.compact.safetensors"
    second.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="second.compact.safetensors is not whole"):
        unpack.unpack(source, made)
    assert not list(made.iterdir())
    shutil.copy(file, second)
    assert len(unpack.unpack(source, made)) == 2


def test_files_in_the_way_are_not_replaced(packed, tmp_path):
    link = tmp_path / "made" / "model.safetensors"
    link.parent.mkdir()
    (link.parent / "model.safetensors.tmp").write_text("mine")
    unpack.unpack(packed[0] / "compact", link.parent)
    assert sorted(path.name for path in link.parent.iterdir()) == [link.name, link.name + ".tmp"]
    link.unlink()
    link.symlink_to("nowhere")
    with pytest.raises(ValueError, match="is there. Allowed"):
        unpack.unpack(packed[0] / "compact", tmp_path / "made")
    assert link.is_symlink()


def test_a_folder_that_cannot_be_packed_is_told(tmp_path):
    (tmp_path / "dense").mkdir()
    with pytest.raises(ArtifactError, match="holds no .safetensors"):
        compact.write(tmp_path / "dense", tmp_path / "compact")
    (tmp_path / "dense" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="a whole safetensors file"):
        compact.write(tmp_path / "dense", tmp_path / "compact")
    assert not (tmp_path / "compact" / "model.compact.safetensors").exists()


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_card_tells_the_number_format_and_the_size_of_the_compact_file(dtype, tmp_path):
    model = ecoflap.load(DEMO, device="cpu")
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    plan.loc[0, "sparsity"] = 0  # not packed: it would grow
    ecoflap.prune(model, [], plan, criterion="magnitude")
    model.module.to(dtype)
    model.save(tmp_path / "dense")
    text = (tmp_path / "dense" / "README.md").read_text()
    assert f"dense tensors of {str(dtype).removeprefix('torch.')} with zeros" in text
    compact.write(tmp_path / "dense", tmp_path / "compact")
    stored = load_file(tmp_path / "compact" / "model.compact.safetensors")
    small = sum(
        tensor.nbytes
        for matrix in model.matrices()
        for name, tensor in stored.items()
        if name.removesuffix(unpack.MASK) == f"{matrix.name}.weight"
    )
    whole = sum(matrix.n_weights * dtype.itemsize for matrix in model.matrices())
    assert f"values that are there: {small / whole:.0%} of the bytes" in text


def test_weights_are_stored_in_16_bits_only_where_that_loses_nothing(pruned):
    model = ecoflap.load(DEMO, device="cpu")
    export.shorten(model, DEMO)
    dense = load_file(DEMO / "model.safetensors")
    assert {p.dtype for p in model.module.parameters()} == {torch.float16}
    assert all(same_bits(t, dense[n]) for n, t in model.module.state_dict().items() if n in dense)
    updated = ecoflap.load(DEMO, device="cpu")
    weight = next(updated.matrices()).module.weight
    with torch.no_grad():
        weight[0, 0] = 1 / 3
    export.shorten(updated, DEMO)
    assert weight.dtype == torch.float32
    assert weight[0, 0] == torch.tensor(1 / 3)


def facts(**changes):
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
    return card.Facts(**{**shown, **changes})


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
    configuration.check(config, SCHEMAS)
    read = settings.export_checkpoint(
        config, model="demo-blip2", variant="ecoflap-finetuned", sparsity="0.6", seed="0"
    )
    shown = export.facts(read["card"], [], dtype="float32", seed=0, manifest=None)
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
    baselines.prune_global_magnitude(model, "0.5")
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
    configuration.check(config, SCHEMAS)
    read = settings.export_checkpoint(
        config, model="blip-vqa", variant="ecoflap-zeroth-finetuned", sparsity="0.5", seed="0"
    )
    told = export.facts(read["card"], [], dtype="float32", seed=0, manifest=None).method
    assert told["fine-tuned on"].startswith("all but 512 samples of vqav2, split train")


@pytest.mark.parametrize(("sparsity", "suite"), [("0.35", "extra"), ("0.45", "demo-generation")])
def test_the_card_shows_what_experiments_measure_the_selected_ones_first(sparsity, suite):
    config = shipped()
    config["tasks"]["extra"] = {**config["tasks"]["captions"], "label": "Extra"}
    table = {"kind": "table", "title": "T", "models": ["demo-blip2"], "variants": ["wanda"]}
    config["experiments"]["one"] = {**table, "sparsities": ["0.35"], "tasks": ["extra"]}
    config["experiments"]["two"] = {**table, "sparsities": ["0.35", "0.45"], "tasks": ["captions"]}
    config["run"] = ["one"]
    configuration.check(config, SCHEMAS)
    (found,) = targets.metrics_of(config, targets.Point("demo-blip2", "wanda", 0, sparsity))
    assert found.split("/")[-2] == suite


def stored_changes(folder, model, dense):
    head = artifacts.header("pruned", rule="test", code="", config={}, dense=dense)
    model.masks = {
        m.name: artifacts.pack_mask(torch.zeros_like(m.module.weight, dtype=torch.bool))
        for m in model.matrices()
    }
    pruning.save_changes(model, folder / "changes.safetensors", head, updates_weights=False)
    return folder / "changes.safetensors"


def test_changes_that_do_not_belong_to_the_checkpoint_are_refused(tmp_path):
    shutil.copytree(DEMO, tmp_path / "dense")
    head = artifacts.header("model", rule="test", code="", config={})
    artifacts.write_manifest(tmp_path / "dense", head, [])
    model = ecoflap.load(tmp_path / "dense", device="cpu")
    right = artifacts.file_hash(tmp_path / "dense")
    changes = stored_changes(tmp_path, model, right)
    pruning.load_changed(tmp_path / "dense", changes, device="cpu")
    other = stored_changes(tmp_path, model, "another")
    with pytest.raises(ArtifactError, match="made from another checkpoint"):
        pruning.load_changed(tmp_path / "dense", other, device="cpu")
    smaller = stored_changes(tmp_path, tiny.clip_model(), right)
    with pytest.raises(ArtifactError, match="fits|does not fit"):
        pruning.load_changed(tmp_path / "dense", smaller, device="cpu")
    config = tmp_path / "dense" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "logit_scale": 1}))
    with pytest.raises(ArtifactError, match="config.json is changed"):
        pruning.load_changed(tmp_path / "dense", changes, device="cpu")
