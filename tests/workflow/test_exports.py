"""Exports of the pipeline: loaded by transformers alone they are what was evaluated."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ecoflap import artifacts
from ecoflap.pruning import changes
from ecoflap_pipeline import verify
from ecoflap_pipeline.config import check as configuration
from helpers.configs import ROOT, merged
from helpers.projects import SMALL

POINT = "demo-clip/wanda/seed0/0.5"
DENSE = "results/models/demo-clip"
# A fresh process that knows nothing of this package.
PLAIN = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, CLIPModel
model = CLIPModel.from_pretrained(sys.argv[1], dtype="float32").eval()
AutoProcessor.from_pretrained(sys.argv[1])
logits = model(**load_file("inputs.safetensors")).logits_per_image
save_file({"logits": logits.detach().contiguous()}, "logits.safetensors")
assert not [name for name in sys.modules if name.startswith("ecoflap")]
"""


@pytest.fixture(scope="module")
def exported(finished):
    """The finished project with one export; it is as before afterwards."""
    code, output = finished.snakemake(f"results/exports/{POINT}")
    assert code == 0, output
    yield finished
    shutil.rmtree(finished.folder / "results" / "exports")


def test_an_export_is_what_was_evaluated(exported, monkeypatch):
    monkeypatch.chdir(exported.folder)
    model = changes.load_changed(DENSE, f"results/pruned/{POINT}/changes.safetensors", device="cpu")
    samples, _ = artifacts.read_tensors(
        "results/calibration/demo-clip/scenes-image-captions/seed0/samples.safetensors",
        "calibration",
    )
    save_file({name: tensor[:4] for name, tensor in samples.items()}, "inputs.safetensors")
    subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, f"results/exports/{POINT}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    expected = model.module(**load_file("inputs.safetensors")).logits_per_image
    assert (load_file("logits.safetensors")["logits"] == expected).all()
    dense = load_file(f"{DENSE}/model.safetensors")
    stored = load_file(f"results/exports/{POINT}/model.safetensors")
    assert {n: t.dtype for n, t in stored.items()} == {n: t.dtype for n, t in dense.items()}
    text = (exported.folder / f"results/exports/{POINT}/README.md").read_text()
    layers, _ = artifacts.read_table(f"results/pruned/{POINT}/layers.parquet", "layers")
    removed = round((layers["achieved_sparsity"] * layers["n_weights"]).sum())
    assert f"| all prunable | {removed:,} | {layers['n_weights'].sum():,} |" in text
    for suite, column in (("dense/seed0/0.0", 2), ("wanda/seed0/0.5", 3)):
        path = f"results/evaluation/demo-clip/{suite}/demo-zero-shot/metrics.json"
        for row in artifacts.read_json(path, "metrics")["metrics"]:
            shown = next(line for line in text.splitlines() if f"| {row['task'].title()} |" in line)
            if not row["subset"]:
                assert f"{100 * row['value']:.1f}" in shown.split("|")[column + 1]


def test_a_changed_file_of_an_export_is_damage(exported, monkeypatch):
    monkeypatch.chdir(exported.folder)
    config = merged(SMALL)
    configuration.check(config, ROOT)

    def states():
        found = verify.verify(config, Path("workflow/scripts"))
        return {str(f.path): f.state for f in found if "exports" in str(f)}

    manifest, card = (f"results/exports/{POINT}/{name}" for name in ("manifest.json", "README.md"))
    assert states() == {manifest: "whole"}
    before = Path(card).read_bytes()
    Path(card).write_bytes(before + b"changed")
    assert states() == {manifest: "damaged"}
    Path(card).write_bytes(before)


def test_a_checkpoint_that_changed_after_pruning_is_not_exported(exported):
    """The export that is there stays as it is."""
    made = exported.folder / f"results/exports/{POINT}/model.safetensors"
    before = made.read_bytes()
    weights = exported.folder / DENSE / "model.safetensors"
    shutil.copy2(weights, exported.folder / "kept.safetensors")
    other = f"results/exports/{POINT.replace('wanda', 'global-magnitude')}"
    try:
        tensors = load_file(weights)
        tensors["logit_scale"] += 1
        save_file(tensors, weights, metadata={"format": "pt"})
        code, output = exported.snakemake(other, "--rerun-triggers", "input")
    finally:
        shutil.copy2(exported.folder / "kept.safetensors", weights)
    assert code != 0
    log = exported.folder / other.replace("exports", "logs/export_checkpoint")
    assert "model.safetensors is changed" in log.with_name("0.5.log").read_text()
    assert not (exported.folder / other).exists()
    assert made.read_bytes() == before
