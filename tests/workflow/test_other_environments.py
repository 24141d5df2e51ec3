"""Models whose jobs run with another Python, from checkpoint and data to a table."""

import subprocess

import pandas as pd
import pytest
import yaml

from ecoflap import artifacts
from helpers import layouts
from helpers.projects import ROOT, SMALL, Project

PYTHONS = {name: str(ROOT / f".venv-{name}" / "bin" / "python") for name in ("lavis", "open-clip")}


def config(folder):
    """NLVR2 in its own layout for LAVIS, ImageNet's for an EVA-CLIP."""
    return {
        "run": ["elsewhere"],
        "datasets": {
            "small-nlvr2": layouts.nlvr2(folder / "nlvr2"),
            "small-imagenet": layouts.imagenet(folder / "imagenet"),
        },
        "models": {
            "nlvr": {
                "label": "BLIP NLVR2",
                "family": "blip-nlvr",
                "source": {"folder": str(folder / "nlvr")},
                "calibration": "small-pairs",
            },
            "eva": {
                "label": "EVA-CLIP",
                "family": "open-clip",
                "source": {"folder": str(folder / "eva")},
                "blocks": {"vision": "visual.trunk.blocks"},
                "calibration": "small-labels",
            },
        },
        "calibrations": {
            "small-pairs": {
                "dataset": {"name": "small-nlvr2", "split": "train", "view": "pairs"},
                "format": "image-pair",
                "samples": 6,
            },
            "small-labels": {
                "dataset": {"name": "small-imagenet", "split": "train", "view": "classes"},
                "format": "image-label",
                "prompt": "a photo of a {label}.",
                "samples": 6,
            },
        },
        "tasks": {
            "small-sentences": {
                "label": "Sentences",
                "kind": "image-pair",
                "dataset": {"name": "small-nlvr2", "split": "dev", "view": "pairs"},
            },
            "small-classes": {
                "label": "Classes",
                "kind": "classification",
                "dataset": {"name": "small-imagenet", "split": "validation", "view": "classes"},
                "prompts": ["a photo of a {label}.", "the {label}"],
            },
        },
        "scores": {"small": {"estimator": "gradnorm", "samples": 6, "batch_size": 3}},
        "variants": SMALL["variants"],
        "experiments": {
            "elsewhere": {
                "kind": "table",
                "title": "Elsewhere",
                "models": ["nlvr", "eva"],
                "variants": ["small-ecoflap"],
                "sparsities": ["0.5"],
                "tasks": ["small-sentences", "small-classes"],
            }
        },
    }


def project_with(folder, **changes):
    made = Project(folder)
    (made.folder / "elsewhere.yaml").write_text(yaml.safe_dump({**config(folder), **changes}))
    return made


def test_what_is_missing_is_told_before_the_first_job_but_not_to_a_dry_run(tmp_path):
    project = project_with(tmp_path)
    assert project.planned(configfile="elsewhere.yaml")["evaluate_model"] == 4
    code, output = project.snakemake(configfile="elsewhere.yaml")
    assert code != 0
    for name, environment in (("nlvr", "lavis"), ("eva", "open-clip")):
        assert f"models.{name}: the family" in output
        assert f"--sdm conda, or a Python under environments.{environment}" in output
        assert f"models.{name}: no model in source.folder" in output
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()
    code, output = project.snakemake("calibrations")
    assert code == 0, output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that has run with the two environments."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, family, python in (
        ("nlvr", "blip-nlvr", PYTHONS["lavis"]),
        ("eva", "open-clip", PYTHONS["open-clip"]),
    ):
        (folder / name).mkdir()
        command = [python, ROOT / "tests/environments/checkpoints.py", family, folder / name]
        paths = f"{ROOT / 'tests'}:{ROOT / 'workflow/scripts'}"
        subprocess.run(command, env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"}, check=True)
    made = project_with(folder, environments=PYTHONS)
    code, output = made.snakemake(configfile="elsewhere.yaml")
    assert code == 0, output
    return made


@pytest.mark.environments
def test_both_models_reach_the_table(finished):
    frame = pd.read_csv(finished.folder / "results/tables/elsewhere.csv")
    measured = frame[frame["source"] == "measured"]
    for model, column in (("BLIP NLVR2", "Sentences"), ("EVA-CLIP", "Classes")):
        rows = measured[(measured["model"] == model) & measured["column"].str.startswith(column)]
        assert set(rows["method"]) == {"Dense", "ECoFLaP"}
        assert rows["value"].between(0, 100).all()


@pytest.mark.environments
@pytest.mark.parametrize(
    ("model", "suite", "libraries"),
    [
        ("nlvr", "small-sentences", {"salesforce-lavis", "transformers", "numpy"}),
        ("eva", "small-classes", {"open_clip_torch", "timm", "torchvision"}),
    ],
)
def test_jobs_ran_with_the_versions_that_their_environment_pins(finished, model, suite, libraries):
    environment = {"nlvr": "lavis", "eva": "open-clip"}[model]
    lines = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"][-1]
    pins = dict(line.split("==") for line in lines["pip"])
    results = finished.folder / "results"
    heads = [
        artifacts.read_manifest(results / "models" / model)["ecoflap"],
        artifacts.read_table(
            results / f"scores/{model}/{name(model)}/seed0/small.parquet", "scores"
        )[1],
    ]
    point = f"{model}/small-ecoflap/seed0/0.5"
    heads.append(artifacts.read_json(results / "pruned" / point / "cost.json", "cost")["ecoflap"])
    path = results / "evaluation" / point / suite / "metrics.json"
    heads.append(artifacts.read_json(path, "metrics")["ecoflap"])
    for head in heads:
        assert {lib: head["versions"][lib] for lib in libraries} == {
            lib: pins[lib] for lib in libraries
        }


def name(model):
    return {"nlvr": "small-pairs", "eva": "small-labels"}[model]


@pytest.mark.environments
def test_pickled_weights_are_stored_as_safetensors_and_half_of_them_go(finished):
    results = finished.folder / "results"
    assert not list((results / "models/nlvr").glob("*.pth"))
    assert (results / "models/nlvr/model.safetensors").is_file()
    for model in ("nlvr", "eva"):
        folder = results / f"pruned/{model}/small-ecoflap/seed0/0.5"
        layers, _ = artifacts.read_table(folder / "layers.parquet", "layers")
        removed = (layers["achieved_sparsity"] * layers["n_weights"]).sum()
        assert removed / layers["n_weights"].sum() == pytest.approx(0.5, abs=0.02)
    assert set(layers["tower"]) == {"vision"}


@pytest.mark.environments
def test_a_second_run_has_nothing_to_do(finished):
    code, output = finished.snakemake(configfile="elsewhere.yaml")
    assert code == 0
    assert "Nothing to be done" in output
