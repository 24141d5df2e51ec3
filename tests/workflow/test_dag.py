"""The workflow: what a run makes, what reruns when, and what failures leave behind."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from snakemake.cli import parse_args, parse_cores

from ecoflap import artifacts
from ecoflap.evaluation import metrics
from helpers.projects import ROOT, SMALL, TOO_MANY


def test_a_run_makes_tables_and_figures(finished):
    results = finished.folder / "results"
    for suffix in ("csv", "md", "html", "tex"):
        assert (results / "tables" / f"small-table.{suffix}").stat().st_size > 100
    for suffix in ("pdf", "svg", "png", "csv"):
        assert (results / "figures" / f"small-figure.{suffix}").stat().st_size > 100
    frame = pd.read_csv(results / "tables" / "small-table.csv")
    measured = frame[frame["source"] == "measured"]
    assert set(measured["method"]) == {"Dense", "Global magnitude", "Wanda", "ECoFLaP"}
    published = frame[frame["source"] == "published"]
    paper = pd.read_csv(ROOT / "workflow/resources/published/table2-clip.csv", comment="#")
    assert published["value"].notna().sum() == paper.iloc[:, 2:].notna().sum().sum()
    assert published["method"].unique().tolist() == paper["method"].tolist()
    text = (results / "tables" / "small-table.md").read_text()
    assert text.index("Measured by this run") < text.index("Published by the paper")


def test_budgets_are_kept_from_allocation_to_the_pruned_model(finished):
    results = finished.folder / "results"
    path = results / "allocations/demo-clip/small-ecoflap/seed0/0.5.json"
    plan = pd.DataFrame(artifacts.read_json(path, "allocation")["matrices"])
    assert plan["keep"].sum() == round(0.5 * plan["n_weights"].sum())
    folder = results / "pruned/demo-clip/small-ecoflap/seed0/0.5"
    layers, _ = artifacts.read_table(folder / "layers.parquet", "layers")
    # Rows of 128 inputs cannot express more than 1/256 of a difference.
    assert (layers["achieved_sparsity"] - layers["sparsity"]).abs().max() <= 1 / 256 + 1e-9


def test_metrics_can_be_computed_again_from_predictions(finished):
    for path in finished.folder.glob("results/evaluation/**/metrics.json"):
        stored = artifacts.read_json(path, "metrics")
        predictions, head = artifacts.read_table(path.parent / "predictions.parquet", "predictions")
        again = [
            {"task": task, **row}
            for task, entry in head["config"]["tasks"].items()
            for row in metrics.compute(entry, predictions[predictions["task"] == task])
        ]
        assert again == stored["metrics"]


def test_each_stage_and_experiment_is_a_target(project):
    # The model may be there already: tests of one process share the project.
    planned = set(project.planned("calibrations")) - {"total", "prepare_model"}
    assert planned == {"extract_calibration", "calibrations"}
    targets = {
        "scores": "compute_scores",
        "allocations": "allocate_sparsity",
        "pruned_models": "prune_model",
        "evaluations": "evaluate_model",
        "exports": "export_checkpoint",
        "tables": "make_table",
        "figures": "plot_figure",
        "small-table": "make_table",
        "small-figure": "plot_figure",
    }
    planned = project.planned(*targets)
    assert {*targets, *targets.values()} <= set(planned)
    one = "results/scores/demo-clip/scenes-image-captions/seed0/small.parquet"
    assert "compute_scores" in project.planned(one)


def test_shipped_configurations_build_their_dag(project):
    demo = project.planned(configfile="")
    seeds = project.planned(configfile="config/three-seeds.yaml")
    assert demo["evaluate_model"] < seeds["evaluate_model"] < 3 * demo["evaluate_model"]
    smollm2 = "config/smollm2.yaml"
    assert project.planned("smollm2-quick", configfile=smollm2)["evaluate_model"] == 7
    # Four sparsities of magnitude and eight seeded rows, three seeds of two; five patterns; dense.
    assert project.planned(configfile=smollm2)["evaluate_model"] == 4 * (8 + 4) + 5 + 1


@pytest.mark.parametrize("arguments", [(), ("small-table", "--directory", "{project}")])
def test_snakemake_needs_nothing_but_its_name(project, tmp_path, arguments):
    arguments = [argument.format(project=project.folder) for argument in arguments]
    away = arguments and ["--snakefile", str(project.folder / "Snakefile")]
    named = ["--configfile", str(project.folder / "small.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", *away, *arguments, *named],
        cwd=tmp_path if away else project.folder,
        env={key: value for key, value in os.environ.items() if key != "SNAKEMAKE_PROFILE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "make_table" in done.stdout


MODULE = """
module ecoflap:
    snakefile: "{snakefile}"

use rule * from ecoflap as ecoflap_*
"""
PLAN = "results/allocations/demo-clip/small-ecoflap/seed0/0.5.json"


@pytest.mark.parametrize("way", ["--directory", "module"])
def test_results_can_lie_in_another_folder_than_the_project(project, tmp_path, way):
    snakefile = project.folder / "Snakefile"
    if way == "module":
        (tmp_path / "Snakefile").write_text(MODULE.format(snakefile=snakefile))
        snakefile = tmp_path / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--cores", "2"]
    command += ["--directory", tmp_path, "--configfile", project.folder / "small.yaml", "--", PLAN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head = artifacts.read_header(tmp_path / PLAN, "allocation")
    assert head["code"]["script"] == "allocate_sparsity.py"
    command[-2:] = ["--dry-run", "--", "results/tables/small-table.md"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_profiles_of_one_machine_and_of_a_cluster(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    cluster = ["--profile", "profiles/slurm", "--workflow-profile", "none"]
    one, slurm = (parse_args(arguments)[1] for arguments in ([], cluster))
    for settings in (one, slurm):
        triggers = {trigger.name for trigger in settings.rerun_triggers}
        assert triggers == {"MTIME", "PARAMS", "INPUT", "SOFTWARE_ENV"}
        assert settings.rerun_incomplete is True
    assert (one.executor, one.cores) == (None, parse_cores("all"))
    assert one.resources["gpu"].value == 1
    assert (slurm.executor, slurm.cores, slurm.jobs) == ("slurm", None, 50)
    assert "gpu" not in slurm.resources
    code, output = project.snakemake(*cluster, "--dry-run")
    assert code == 0, output


def test_a_failing_rule_leaves_its_message_in_its_log_and_no_output(project):
    wrong = json.loads(json.dumps(SMALL))
    wrong["calibrations"]["scenes-image-captions"] = TOO_MANY
    project.write_config(wrong)
    try:
        code, output = project.snakemake("calibrations")
    finally:
        project.write_config(SMALL)
    assert code != 0
    assert "1900 samples asked for" in output
    folder = "demo-clip/scenes-image-captions/seed0"
    log = project.folder / f"results/logs/extract_calibration/{folder}.log"
    assert "Traceback" not in output + log.read_text()  # it is the user's to mend
    assert "Raise" in log.read_text() or "Lower samples" in log.read_text()
    made = project.folder / f"results/calibration/{folder}"
    assert not made.exists() or not any(made.iterdir())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("evaluation/demo-clip/dense/seed0/0.5/shape/metrics.json", "0.0 for dense"),
        ("evaluation/demo-clip/wanda/seed0/0.0/shape/metrics.json", "0.0 for dense"),
        ("pruned/demo-clip/dense/seed0/0.5/changes.safetensors", "MissingRuleException"),
        ("pruned/demo-clip/wanda-2-4/seed0/0.6/changes.safetensors", "a sparsity of 1 - N/4"),
        ("evaluation/demo-clip/wanda/seed0/0.5/captions/metrics.json", "does not suit model"),
        ("evaluation/demo-blip2/dense/seed0/0.0/shape/metrics.json", "does not suit model"),
        ("finetuned/demo-clip/ecoflap-finetuned/seed0/0.5/curve.parquet", "of the format"),
        ("exports/demo-clip/ecoflap-finetuned/seed0/0.5", "of the format"),
    ],
)
def test_files_of_points_that_cannot_be_are_refused(project, path, said):
    code, output = project.snakemake(f"results/{path}", "--dry-run")
    assert code != 0
    assert said in output


def test_owl_ria_and_mixed_patterns_run_from_the_config(finished, tmp_path):
    project, config = finished.copy(tmp_path), copy.deepcopy(SMALL)
    config["scores"]["count"] = {"estimator": "outliers", "samples": 16, "batch_size": 16}
    config["variants"]["small-owl"] = {
        "label": "OWL",
        "score": "count",
        "allocation": "owl",
        "criterion": "ria",
        "pattern": "n:8",
    }
    project.write_config(config)
    folder = "results/pruned/demo-clip/small-owl/seed0/0.5"
    code, output = project.snakemake(f"{folder}/layers.parquet")
    assert code == 0, output
    layers, _ = artifacts.read_table(project.folder / folder / "layers.parquet", "layers")
    assert (layers["achieved_sparsity"] * 8 % 1 == 0).all()
    assert (layers["achieved_sparsity"] == layers["sparsity"]).all()
    assert layers["sparsity"].nunique() > 1


def test_a_score_in_shards_is_that_of_one_job_to_the_byte(finished, tmp_path):
    project = finished.copy(tmp_path)
    path = "results/scores/demo-clip/scenes-image-captions/seed0/shaken.parquet"
    score = {"estimator": "zeroth", "samples": 8, "batch_size": 8}
    made = []
    for shards in (2, 1):
        scores = {**SMALL["scores"], "shaken": {**score, "shards": shards}}
        project.write_config({**SMALL, "scores": scores})
        planned = project.planned(path)
        assert planned.get("score_shard", 1) == shards
        code, output = project.snakemake(path)
        assert code == 0, output
        made.append((project.folder / path).read_bytes())
        assert not (project.folder / path).with_name("shaken.shards").exists()
    assert made[0] == made[1]
    table, head = artifacts.read_table(project.folder / path, "scores")
    assert (table["score"] > 0).all()
    assert head["rule"] == "compute_scores"
    assert "shards" not in head["config"]["score"]


def test_histograms_shapes_and_budgets_per_tower_reach_the_allocation(finished, tmp_path):
    project, config = finished.copy(tmp_path), copy.deepcopy(SMALL)
    config["scores"]["each"] = {"estimator": "elements", "samples": 16, "batch_size": 16}
    shared = {"criterion": "wanda", "budget": "tower", "granularity": "matrix"}
    config["variants"] |= {
        "small-er": {"label": "ER", "allocation": "er", **shared},
        "small-global": {"label": "Global", "allocation": "global", "score": "each", **shared},
    }
    project.write_config(config)
    files = [
        f"results/allocations/demo-clip/{name}/seed0/0.5.json"
        for name in ("small-er", "small-global")
    ]
    code, output = project.snakemake(*files)
    assert code == 0, output
    for file in files:
        plan = pd.DataFrame(artifacts.read_json(project.folder / file, "allocation")["matrices"])
        for _, tower in plan.groupby("tower"):
            assert tower["keep"].sum() == round(0.5 * tower["n_weights"].sum())
            assert tower["group_sparsity"].nunique() > 1
        assert not {"buckets", "counts"} & set(plan)


def test_a_chosen_plan_offload_and_iterative_obd_reach_the_table(finished, tmp_path):
    """With weights on the disk the numbers are those of weights in memory, to the byte."""
    project, config = finished.copy(tmp_path), copy.deepcopy(SMALL)
    config["calibrations"] = {"scenes-image-captions": {"held_out": 8}}
    config["models"] = {
        "clip-disk": {
            "label": "From disk",
            "family": "clip",
            "source": {"folder": "workflow/resources/demo/demo-clip"},
            "calibration": "scenes-image-captions",
            "offload": "disk",
        }
    }
    config["variants"] |= {
        "small-auto": {
            "label": "Auto",
            "criterion": "wanda",
            "allocation": "auto",
            "candidates": [
                {"allocation": "ecoflap", "score": "small", "inside": {"allocation": "er"}},
                {"allocation": "uniform"},
            ],
        },
        "small-search": {
            "label": "Search",
            "criterion": "wanda",
            "allocation": "search",
            "candidates": [{"allocation": "ecoflap", "score": "small", "max_sparsity": "+0.1"}],
        },
        "obd": {"label": "OBD", "criterion": "iterative-obd"},
    }
    config["experiments"]["small-table"]["variants"] = ["small-auto", "obd"]
    project.write_config(config)
    same = "results/{}/{}/small-ecoflap/seed0/0.5/{}"
    masks = [same.format("pruned", m, "changes.safetensors") for m in ("demo-clip", "clip-disk")]
    searched = "results/allocations/demo-clip/small-search/seed0/0.5.json"
    code, output = project.snakemake("small-table", *masks, searched)
    assert code == 0, output
    (one, _), (two, _) = (artifacts.read_tensors(project.folder / m, "pruned") for m in masks)
    assert set(one) == set(two)
    assert all((one[name] == two[name]).all() for name in one)
    allocations = project.folder / "results/allocations/demo-clip/small-auto/seed0"
    choice = artifacts.read_json(allocations / "0.5.choice.json", "choice")
    (best,) = [row for row in choice["plans"] if row["chosen"]]
    assert best["loss"] == min(row["loss"] for row in choice["plans"])
    plan = artifacts.read_json(allocations / "0.5.json", "allocation")
    assert len(choice["plans"]) == 5
    assert choice["settings"]["method"] == best["method"]
    assert plan["ecoflap"]["config"]["allocation"][1] == {"method": "uniform"}
    rows = pd.DataFrame(plan["matrices"])
    assert rows["keep"].sum() == round(0.5 * rows["n_weights"].sum())
    plans = [artifacts.read_json(project.folder / file, "allocation") for file in (PLAN, searched)]
    one, two = (pd.DataFrame(plan["matrices"]) for plan in plans)
    assert one["keep"].sum() == two["keep"].sum()
    assert not one["sparsity"].equals(two["sparsity"])
    table = pd.read_csv(project.folder / "results/tables/small-table.csv")
    assert {"Auto", "OBD"} <= set(table["method"])


def test_an_artifact_of_another_point_is_not_used(finished, tmp_path):
    project = finished.copy(tmp_path)
    made, other = (
        f"results/calibration/demo-clip/scenes-image-captions/seed{seed}" for seed in (0, 1)
    )
    shutil.copytree(project.folder / made, project.folder / other)
    scores = "results/scores/demo-clip/scenes-image-captions/seed1/small.parquet"
    code, output = project.snakemake(scores, "--rerun-triggers", "mtime")
    assert code != 0
    assert not (project.folder / scores).exists()
    log = project.folder / "results/logs/compute_scores/demo-clip/scenes-image-captions/seed1"
    assert "seed0/samples.safetensors and copied here" in (log / "small.log").read_text()


@pytest.mark.parametrize(
    ("model", "suite"), [("demo-blip2", "demo-generation"), ("demo-clip", "demo-zero-shot")]
)
def test_the_dense_metrics_are_those_that_ship(project, model, suite):
    path = f"results/evaluation/{model}/dense/seed0/0.0/{suite}/metrics.json"
    code, output = project.snakemake(path, configfile="")
    assert code == 0, output
    shipped = project.folder / f"workflow/resources/demo/{model}/dense_metrics.json"
    expected = json.loads(shipped.read_text())["metrics"]
    assert artifacts.read_json(project.folder / path, "metrics")["metrics"] == expected
