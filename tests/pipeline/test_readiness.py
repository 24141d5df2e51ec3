"""What is missing is told before the first job, and another environment's packages are not used."""

import json
import subprocess
import sys

import pytest

import ecoflap
from ecoflap.errors import ModelError
from ecoflap.models.checkpoints import sources
from ecoflap_pipeline import readiness
from ecoflap_pipeline.code import SCRIPTS

MODELS = {
    "nlvr": {"family": "blip-nlvr", "source": {"folder": "nowhere"}},
    "eva": {"family": "open-clip", "source": {"folder": "nowhere"}},
    "clip": {"family": "clip", "source": {"hub": "a/b", "revision": "0" * 40}},
}


def missing(running=(), preparing=(), *, conda=False, **environments):
    config = {"models": MODELS, "environments": environments}
    return list(readiness.missing(config, running, preparing, conda=conda))


def test_an_environment_that_nobody_makes_is_told_with_both_ways():
    (problem,) = missing(["nlvr", "clip"])
    assert "models.nlvr: the family blip-nlvr needs the environment lavis" in problem
    assert "--sdm conda" in problem
    assert "make setup-lavis" in problem
    assert "{lavis: .venv-lavis/bin/python}" in problem


def test_conda_or_a_named_python_is_enough():
    assert missing(["nlvr", "clip"], conda=True) == []
    assert missing(["nlvr", "clip"], lavis=sys.executable) == []
    assert len(missing(["nlvr", "eva"], lavis=sys.executable)) == 1


def test_a_folder_without_the_family_s_config_is_told(tmp_path, monkeypatch):
    first, second = missing(preparing=["nlvr", "eva", "clip"])
    assert "models.eva: no model in source.folder 'nowhere'" in first
    assert "open_clip_config.json" in first
    assert "config.json" in second
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.setitem(MODELS["eva"], "source", {"folder": str(tmp_path)})
    assert missing(preparing=["eva"]) == []


@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        ("config.json", {"architectures": ["BlipNLVR"]}, "no package lavis.*make setup-lavis"),
        ("open_clip_config.json", {}, "no package open_clip.*make setup-open-clip.*--sdm conda"),
    ],
)
def test_a_model_alone_in_the_wrong_environment_is_told(file, config, said, tmp_path):
    (tmp_path / file).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=said):
        ecoflap.load(tmp_path, device="cpu")


def test_a_folder_of_pth_is_pickled(tmp_path):
    assert not sources.is_pickled(tmp_path)
    (tmp_path / "model_base_nlvr.pth").touch()
    assert sources.is_pickled(tmp_path)


JOB = """
import sys
sys.path.append(sys.argv[2])  # as Snakemake's preamble does
from ecoflap_pipeline import job
job.start_job(sys.argv[1], 1, sys.argv[3] or None)
import logging, os
logging.info("ran in %s with path %s", sys.executable, sys.path)
import borrowed
"""


@pytest.fixture
def host(tmp_path):
    """Site-packages of another Python."""
    folder = tmp_path / "host" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "borrowed.py").write_text("")
    return folder


def run(tmp_path, host, python="", interpreter=sys.executable):
    script = tmp_path / "job.py"
    script.write_text(JOB)
    log = tmp_path / "log"
    environment = {"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"}
    command = [interpreter, str(script), str(log), str(host), str(python)]
    done = subprocess.run(command, env=environment, check=False)
    return done.returncode, log.read_text()


def test_packages_of_another_environment_are_not_taken_in_silence(tmp_path, host):
    code, log = run(tmp_path, host)
    assert code != 0
    assert "No module named 'borrowed'" in log


def test_a_job_starts_again_with_the_python_that_is_named(tmp_path, host):
    other = tmp_path / "other-python"
    other.symlink_to(sys.executable)
    (host / "borrowed.py").unlink()
    _, log = run(tmp_path, host, other)
    assert f"ran in {other}" in log


def test_what_the_library_stands_on_must_be_the_environment_s_own(tmp_path, host):
    """An empty venv, and pandas in the packages that come after its own."""
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", empty], check=True)
    (host / "pandas.py").write_text("")
    code, log = run(tmp_path, host, empty / "bin/python")
    assert code != 0
    assert f"the environment {empty} has no pandas: it would be taken from {host}" in log


@pytest.mark.parametrize(
    ("sinfo", "said"),
    [
        (None, ["there is no command sinfo"]),
        ("echo first >&2; echo 'no controller' >&2; exit 1", ["(no controller)"]),
        ("exit 0", []),
    ],
)
def test_slurm_answers_or_it_is_told(tmp_path, monkeypatch, sinfo, said):
    monkeypatch.setenv("PATH", str(tmp_path))
    if sinfo:
        (tmp_path / "sinfo").write_text(f"#!/bin/sh\n{sinfo}\n")
        (tmp_path / "sinfo").chmod(0o755)
    problems = list(readiness.slurm_problems())
    assert len(problems) == len(said)
    assert all(text in problem for text, problem in zip(said, problems, strict=True))
