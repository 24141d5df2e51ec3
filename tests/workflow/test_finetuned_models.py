"""Fine-tuning through Snakemake: killed and resumed, verified, refused where it does not fit."""

import copy
import os
import shutil
import signal
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecoflap import artifacts, models
from ecoflap.finetuning import training
from ecoflap.pruning import changes
from helpers.projects import SMALL, start

FOLDER = "results/finetuned/demo-clip/small-tuned/seed0/0.5"
PRUNED = "results/pruned/demo-clip/small-ecoflap/seed0/0.5/changes.safetensors"
DEFAULTS = {"weight_decay": 0.05, "warmup": 0, "precision": "bfloat16"}
FURTHER = {
    "run": ["small-tuned-table", "small-curve"],
    "finetuning": {
        "small": {
            "method": "full",
            "data": [
                {
                    "dataset": {
                        "name": "scenes",
                        "split": "train",
                        "view": "captions",
                        "limit": 60,
                    },
                    "format": "image-caption",
                    "held_out": 4,
                }
            ],
            "epochs": 6,
            "learning_rate": 0.0001,
            "batch_size": 16,
        }
    },
    "variants": {
        **SMALL["variants"],
        "small-tuned": {"label": "Tuned", "from": "small-ecoflap", "finetune": "small"},
    },
    "experiments": {
        **SMALL["experiments"],
        "small-tuned-table": {
            "kind": "table",
            "title": "Small",
            "models": ["demo-clip"],
            "variants": ["small-tuned"],
            "sparsities": ["0.5"],
            "tasks": ["shape", "colour"],
        },
        "small-curve": {
            "kind": "training-curve",
            "title": "Small",
            "models": ["demo-clip"],
            "variants": ["small-tuned"],
            "sparsities": ["0.5"],
        },
    },
}


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """A copy of the finished project with a fine-tuned variant."""
    made = finished.copy(tmp_path_factory.mktemp("tuned"))
    made.write_config({**SMALL, **FURTHER})
    return made


def kill_after_a_stop(project):
    """Starts fine-tuning, and ends all its processes once there is something to go on from."""
    run = start(project, f"{FOLDER}/cost.json", start_new_session=True)
    checkpoint = project.folder / FOLDER / "checkpoint.safetensors"
    while not checkpoint.exists() and run.poll() is None:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    code, output = project.snakemake("--unlock")
    assert code == 0, output
    return checkpoint


def undisturbed(project):
    """Returns what the library makes of the same pruned model, by name, and its curve."""
    folder = project.folder / "results/models/demo-clip"
    model = models.load(folder, device="cpu")
    changes.apply_changes(model, project.folder / PRUNED, artifacts.file_hash(folder))
    settings = {**FURTHER["finetuning"]["small"], **DEFAULTS}
    curve = training.finetune(model, settings)
    return dict(model.module.named_parameters()), curve


def test_a_checkpoint_that_changed_after_pruning_is_not_trained_on(project):
    weights = project.folder / "results/models/demo-clip/model.safetensors"
    shutil.copy2(weights, project.folder / "kept.safetensors")
    try:
        tensors = load_file(weights)
        tensors["logit_scale"] += 1
        save_file(tensors, weights, metadata={"format": "pt"})
        code, output = project.snakemake(f"{FOLDER}/cost.json", "--rerun-triggers", "input")
    finally:
        shutil.copy2(project.folder / "kept.safetensors", weights)
    assert code != 0
    assert "model.safetensors is changed" in output
    assert "Traceback" not in output
    assert not (project.folder / FOLDER).exists() or not any((project.folder / FOLDER).iterdir())


def test_a_killed_job_goes_on_and_what_it_makes_is_evaluated_and_verified(project):
    checkpoint = kill_after_a_stop(project)
    content = checkpoint.read_bytes()
    spent = artifacts.read_header(checkpoint, "fine-tuning checkpoint")["spent"]
    other = copy.deepcopy({**SMALL, **FURTHER})
    other["finetuning"]["small"]["learning_rate"] = 0.0002
    project.write_config(other)
    code, output = project.snakemake(f"{FOLDER}/cost.json")
    assert code != 0
    assert "learning_rate (then 0.0001, now 0.0002)" in output
    assert "Put that back, or delete the file to begin anew" in output
    assert "Traceback" not in output
    assert checkpoint.read_bytes() == content

    project.write_config({**SMALL, **FURTHER})
    code, output = project.snakemake("small-tuned-table", "small-curve")
    assert code == 0, output
    log = project.folder / "results/logs/finetune_model/demo-clip/small-tuned/seed0/0.5.log"
    assert "going on at step" in log.read_text()
    assert not checkpoint.exists()
    cost = artifacts.read_json(project.folder / FOLDER / "cost.json", "cost")
    assert cost["seconds"] > spent["seconds"] > 0
    weights, curve = undisturbed(project)
    stored, _ = artifacts.read_tensors(project.folder / FOLDER / "changes.safetensors", "pruned")
    assert len(stored) == len(weights)
    for name, tensor in stored.items():
        expected = weights.get(name.removeprefix("state."), weights.get(f"{name}.weight"))
        assert torch.equal(tensor, expected), name
    found, _ = artifacts.read_table(project.folder / FOLDER / "curve.parquet", "curve")
    assert found.equals(curve)
    drawn = pd.read_csv(project.folder / "results/figures/small-curve.csv")
    assert drawn["loss"].tolist() == pytest.approx(curve["loss"].tolist())
    table = (project.folder / "results/tables/small-tuned-table.md").read_text()
    assert "| Tuned | 0.5 |" in table
    code, output = project.snakemake("verify")
    assert code == 0, output


def test_verify_finds_a_weight_that_came_back(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    path = f"{FOLDER}/changes.safetensors"
    tensors, head = artifacts.read_tensors(path, "pruned")
    name = min(name for name in tensors if not name.startswith("state."))
    gone = (tensors[name] == 0).nonzero()[0].tolist()
    kept = (tensors[name] != 0).nonzero()[0].tolist()
    tensors[name][*gone], tensors[name][*kept] = 1.0, 0.0  # as many zeros as before
    artifacts.write_tensors(path, tensors, head)
    code, output = project.snakemake("verify")
    assert code != 0
    assert f"1 weights of {name} that {PRUNED} removes" in output
