"""Costs by stage and energy, against numbers added up by hand."""

import copy
import types

import pandas as pd
import pynvml
import pytest
import torch

from ecoflap import artifacts, measure
from ecoflap_pipeline import points
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.report import costs, published, tables
from helpers.configs import ROOT, merged


def cost_file(path, **facts):
    shown = {"peak_memory_mb": 10.0, "device": "cuda:0", **facts}
    head = artifacts.header("cost", rule="test", code="", config={})
    artifacts.write_json(path, shown, head)


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Two seeds of one method on a GPU, and its dense model."""
    monkeypatch.chdir(tmp_path)
    found = []
    for seed in (0, 1):
        point = ("m", "a", "0.5", seed)
        files = {
            "calibration": f"results/calibration/m/c/seed{seed}/cost.json",
            "scoring": f"results/scores/m/c/seed{seed}/s.cost.json",
            "pruning": f"results/pruned/m/a/seed{seed}/0.5/cost.json",
            "evaluation": f"results/evaluation/m/a/seed{seed}/0.5/t/cost.json",
        }
        cost_file(files["calibration"], seconds=1.0 + seed, device="cpu")
        cost_file(files["scoring"], seconds=100.0, joules=3000.0, peak_memory_mb=80.0)
        cost_file(files["pruning"], seconds=20.0, joules=1000.0)
        cost_file(files["evaluation"], seconds=60.0, joules=2000.0, peak_memory_mb=900.0)
        found += [costs.Part(*point, stage, path) for stage, path in files.items()]
    dense = "results/evaluation/m/dense/seed0/0.0/t/cost.json"
    cost_file(dense, seconds=50.0)
    return [costs.Part("m", "dense", "0.0", 0, "evaluation", dense), *found]


def test_stages_are_averaged_over_seeds_and_the_method_is_their_sum(stages):
    frame = costs.by_stage(stages).set_index("variant")
    row = frame.loc["a"]
    assert row["calibration_seconds"] == 1.5
    assert row["scoring_seconds"] == 100
    assert row["seconds"] == 100 + 20
    assert row["peak_memory_mb"] == 80  # evaluation is no part of the method
    assert row["gpu_hours"] == pytest.approx((100 + 20 + 60) / 3600)  # drawing ran on the CPU
    assert row["joules"] == 6000
    dense = frame.loc["dense"]
    assert dense["gpu_hours"] == pytest.approx(50 / 3600)
    assert dense[["seconds", "scoring_seconds", "joules"]].isna().all()  # no driver told it


def test_the_table_has_a_column_per_stage_and_the_published_cost(stages):
    labels = {"models": {"m": "M"}, "variants": {"a": "A"}, "tasks": {}}
    settings = {
        "labels": labels,
        "tasks": [],
        "published_rows": {"a": "ecoflap-zeroth"},
        "published_columns": {"seconds": "seconds", "peak_memory_mb": "memory_gb"},
    }
    rows = [{"method": "ecoflap-zeroth", "sparsity": "0.5", "seconds": "200", "memory_gb": "1"}]
    frame = tables.tidy(None, costs.by_stage(stages), published.cells(rows), settings)
    shown = tables.side_by_side(frame).set_index("Method")
    assert shown.loc["A", "Scoring (s)"] == "100.0"
    assert shown.loc["A", "Seconds"] == "120.0 (200.0, −80.0)"
    assert shown.loc["A", "Memory (MiB)"] == "80.0 (1024.0, −944.0)"
    assert shown.loc["A", "GPU-hours"] == "0.050"
    assert shown.loc["A", "Energy (kJ)"] == "6.0"
    assert shown.loc["Dense", "Scoring (s)"] == ""
    text = tables.markdown(frame, "Cost")
    assert "GPU-hours and energy: all stages" in text
    assert r"\begin{tabular}" in tables.latex(frame, "Cost")


def test_the_stages_of_the_demo_are_those_that_it_runs():
    config = merged({})
    configuration.check(config, ROOT)
    found = pd.DataFrame(costs.parts(config, "demo-cost"))
    by_variant = found.groupby("variant")["stage"].agg(set)
    assert by_variant["dense"] == {"evaluation"}
    assert by_variant["magnitude"] == {"allocation", "pruning", "evaluation"}
    assert by_variant["global-magnitude"] == {"pruning", "evaluation"}
    assert by_variant["ecoflap-zeroth"] == {
        "calibration",
        "scoring",
        "allocation",
        "pruning",
        "evaluation",
    }
    assert not found.duplicated().any()
    changed = copy.deepcopy(config)
    changed["variants"]["ecoflap-zeroth"] = changed["variants"]["auto"]
    stages = [p.stage for p in costs.parts(changed, "demo-cost") if p.variant == "ecoflap-zeroth"]
    assert "choosing" in stages
    assert stages.count("scoring") == len(points.scores_of(changed["variants"]["auto"])) == 6


@pytest.fixture
def driver(monkeypatch):
    """Stands for NVIDIA's library: counts a joule more at each question."""

    def use(refuses=""):
        asked = []

        def handle(name):
            asked.append(name)
            if refuses == "device":
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
            return "handle"

        def millijoules(found):
            if refuses == "energy":
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return 1000 * len(asked)

        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", millijoules)
        return asked

    properties = types.SimpleNamespace(uuid="1-2-3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return use


def test_energy_is_the_difference_of_what_the_driver_counts(driver, monkeypatch):
    asked = driver()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**20)
    with measure.Cost("cuda:0") as cost:
        pass
    assert cost.as_dict()["joules"] == 1.0
    assert set(asked) == {"GPU-1-2-3"}
    with measure.Cost("cpu") as cost:
        pass
    assert "joules" not in cost.as_dict()


@pytest.mark.parametrize("refuses", ["device", "energy"])
def test_a_driver_that_does_not_tell_leaves_energy_out(driver, refuses):
    driver(refuses)
    assert measure.joules("cuda") is None


def test_no_driver_is_no_error(driver, monkeypatch):
    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    driver()
    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert measure.joules("cuda") is None


def test_parts_of_a_job_add_up():
    one = {"seconds": 1.0, "peak_memory_mb": 5.0, "device": "cuda", "joules": 2.0}
    other = {"seconds": 2.0, "peak_memory_mb": 3.0, "device": "cuda", "joules": 4.0}
    assert measure.total_cost([one, other]) == {
        "seconds": 3.0,
        "peak_memory_mb": 5.0,
        "device": "cuda",
        "joules": 6.0,
    }
    del other["joules"]
    assert "joules" not in measure.total_cost([one, other])
