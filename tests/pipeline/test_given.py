"""What rules are given, on the shipped configuration: files named by hand, code by its imports."""

import subprocess
import sys

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

from ecoflap.errors import ConfigError
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.given import Given, _hashed
from helpers.configs import ROOT, shipped


def given(**changes):
    config = shipped()
    for section, entries in changes.items():
        config[section] = {**config[section], **entries} if isinstance(entries, dict) else entries
    configuration.check(config, ROOT)
    return Given(config)


def of(**names):
    return Wildcards(fromdict={key: str(value) for key, value in names.items()})


POINT = {"model": "demo-blip2", "variant": "ecoflap-gradnorm", "seed": 0, "sparsity": "0.5"}


def test_a_plan_is_made_from_the_scores_of_the_variant():
    scores = given().allocation_scores(of(**POINT))
    assert scores == ["results/scores/demo-blip2/scenes-captions/seed0/gradnorm.parquet"]


def test_a_criterion_that_reads_no_inputs_gets_no_samples():
    asked = given()
    assert asked.prune_samples(of(**POINT)).endswith("scenes-captions/seed0/samples.safetensors")
    assert asked.prune_samples(of(**{**POINT, "variant": "magnitude"})) == []
    assert asked.prune_plan(of(**{**POINT, "variant": "global-magnitude"})) == []


def test_the_code_of_a_job_has_the_plug_ins_that_it_loads():
    asked = given()
    wanda, magnitude = (
        asked.prune_code(of(**{**POINT, "variant": name})) for name in ("wanda", "magnitude")
    )
    assert "ecoflap.criteria.wanda" in wanda["plugins"]
    assert "ecoflap.models.adapters.blip2" in wanda["plugins"]
    assert wanda["hash"] != magnitude["hash"]


def test_the_dense_model_is_evaluated_at_sparsity_zero_alone():
    asked = given()
    dense = {**POINT, "variant": "dense", "suite": "demo-generation"}
    assert asked.evaluation_changes(of(**{**dense, "sparsity": "0.0"})) == []
    with pytest.raises(WorkflowError, match="sparsity 0.5 of the variant dense"):
        asked.evaluation_changes(of(**dense))
    tuned = asked.evaluation_changes(
        of(**{**POINT, "variant": "ecoflap-finetuned", "suite": "demo-generation"})
    )
    assert tuned.startswith("results/finetuned/demo-blip2/ecoflap-finetuned/")


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("auto", 1), ("cuda", 1)])
def test_jobs_that_run_a_model_ask_for_a_gpu_unless_the_device_is_a_cpu(device, gpus):
    asked = given(device=device)
    assert asked.gpus == gpus
    # Targets that the model writes itself need it; drawing samples does not.
    drawn = of(model="demo-blip2", calibration="scenes-captions", seed=0)
    written = of(model="demo-blip2", calibration="scenes-mix-generated", seed=0)
    assert (asked.calibration_gpus(drawn), asked.calibration_gpus(written)) == (0, gpus)


OUTSIDE = """
from ecoflap.criteria.magnitude import *
from ecoflap.criteria import magnitude
from . import kept
"""


def test_a_criterion_of_another_package_is_hashed_with_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "outside"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(OUTSIDE)
    (package / "kept.py").write_text("SHARE = 1")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {"label": "Mine", "criterion": "outside.mine"}
    asked = given(variants={"mine": entry})
    point = of(**{**POINT, "variant": "mine"})
    before = asked.prune_code(point)
    assert "outside.mine" in before["plugins"]
    others = asked.prune_code(of(**POINT))
    (package / "kept.py").write_text("SHARE = 2")
    after = given(variants={"mine": entry})
    assert after.prune_code(point)["hash"] == before["hash"]  # asked once in a run of Snakemake
    _hashed.cache_clear()
    assert after.prune_code(point)["hash"] != before["hash"]
    assert after.prune_code(of(**POINT)) == others
    with pytest.raises(ConfigError, match="no module 'outside.gone'"):
        given(variants={"mine": {**entry, "criterion": "outside.gone"}}).prune_code(point)


def test_building_the_dag_needs_no_torch():
    code = "import sys, ecoflap_pipeline.given; sys.exit('torch' in sys.modules)"
    path = str(ROOT / "workflow" / "scripts")
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=True)
