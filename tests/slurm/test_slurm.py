"""Jobs on a real Slurm of one node, with GPUs that are none."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from cluster import Cluster
from projects import ROOT, SMALL, Project, jobs_of, numbers, wait_for

pytestmark = pytest.mark.slurm

OTHER_SCORE = "results/scores/demo-clip/scenes-image-captions/seed0/other.parquet"
MASKS = "results/pruned/demo-clip/small-ecoflap/seed0/0.5/changes.safetensors"
DENSE = "results/evaluation/demo-clip/dense/seed0/0.0/demo-zero-shot/metrics.json"


def configuration(shards):
    """The README's Table 2 in small; `auto` asks for GPUs and computes without."""
    content = copy.deepcopy(SMALL)
    zeroth = {"estimator": "zeroth", "samples": 16, "batch_size": 16}
    content["device"] = "auto"
    content["scores"] = {
        "small": {**zeroth, "shards": shards},
        "other": {"estimator": "gradnorm", "samples": 32, "batch_size": 16},
    }
    content["experiments"] = {
        "table2": {
            **SMALL["experiments"]["small-table"],
            "variants": ["small-ecoflap"],
        }
    }
    content["run"] = ["table2"]
    return content


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A project in which the same was made without Slurm, in one job per score."""
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    project.write_config(configuration(shards=1))
    code, output = project.snakemake("table2", OTHER_SCORE)
    assert code == 0, output
    return project


def readme_commands():
    section = (ROOT / "README.md").read_text().partition("## On a cluster")[2]
    return re.search(r"```bash\n(.*?)```", section, re.S)[1].splitlines()


@pytest.fixture(scope="module")
def submitted(cluster, tmp_path_factory):
    """A project in which the README's commands ran, and what they printed."""
    project = Project(tmp_path_factory.mktemp("submitted"))
    project.write_config(configuration(shards=2))
    (project.folder / ".venv").symlink_to(ROOT / ".venv")
    clone, setup, activate, partitions, run = readme_commands()
    assert clone.startswith("git clone ")
    assert setup.startswith("make setup")
    edit = "sed -i 's/^  gpu:/&\\n    max_gpu: 2/' partitions.yaml"
    run += " --configfile small.yaml " + os.environ.get("EXTRA", "")
    return project, in_shell(project, activate, partitions, edit, run)


def in_shell(project, *commands):
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=project.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_main(submitted, undisturbed):
    print(submitted[1])
    print(subprocess.run(["bash", "-c", "squeue --states=all -o '%i %T %P %k %l %m %S %e'"], capture_output=True, text=True).stdout)
    print(subprocess.run(["bash", "-c", "head -n 1 $(find results/logs -type f)"], cwd=submitted[0].folder, capture_output=True, text=True).stdout)
    print(subprocess.run(["bash", "-c", "scontrol show job 4"], cwd=submitted[0].folder, capture_output=True, text=True).stdout)
    expected = numbers(undisturbed)
    assert numbers(submitted[0]).items() <= expected.items()
