"""Jobs on a real Slurm of one node, with GPUs that are none, and what disturbs them."""

import copy
import os
import re
import shutil
import signal
import subprocess
from typing import NamedTuple

import pytest
import yaml
from cluster import Cluster, query

from helpers.projects import ROOT, SMALL, Project, jobs_of, numbers, wait_for

pytestmark = pytest.mark.slurm

SCORES = "results/scores/demo-clip/scenes-image-captions/seed0"
OTHER_SCORE = f"{SCORES}/other.parquet"
MASKS = "results/pruned/demo-clip/small-ecoflap/seed0/0.5/changes.safetensors"
DENSE = "results/evaluation/demo-clip/dense/seed0/0.0/demo-zero-shot/metrics.json"
ON_GPU = ("score_shard", "prune_model", "evaluate_model")


class Job(NamedTuple):
    """A line of the queue."""

    number: str
    rule: str
    state: str
    partition: str
    memory: str
    time: str


def history(output, rule=""):
    """The jobs of a run, finished ones too, in the order of their submission."""
    name = re.search(r"SLURM run ID: (\S+)", output)[1]
    lines = query(
        *("squeue", "--noheader", "--states=all", "--sort=i", "--name", name),
        "--format=%i|%k|%T|%P|%m|%l",
    ).splitlines()
    found = []
    for line in lines:
        number, comment, *others = line.split("|")
        found.append(Job(number, re.match(r"rule_(.+?)_wildcards", comment)[1], *others))
    return [job for job in found if rule in ("", job.rule)]


def configuration(shards):
    """The README's Table 2 in small; `auto` asks for a GPU and computes without."""
    content = copy.deepcopy(SMALL)
    content["run"] = ["demo-table2"]
    content["device"] = "auto"
    content["scores"] = {
        "small": {"estimator": "zeroth", "samples": 16, "batch_size": 16, "shards": shards},
        "other": {"estimator": "gradnorm", "samples": 32, "batch_size": 16},
    }
    table = {**SMALL["experiments"]["small-table"], "variants": ["small-ecoflap"]}
    content["experiments"] = {"demo-table2": table}
    return content


def in_shell(project, *commands):
    """Starts commands in a project."""
    return subprocess.Popen(
        ["bash", "-ec", "\n".join(commands)],
        cwd=project.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def commands_of(file, section):
    """The lines of the first block of commands of a section."""
    text = (ROOT / file).read_text().partition(f"# {section}\n")[2]
    return re.search(r"```bash\n(.*?)```", text, re.S)[1].splitlines()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A project in which the same was made without Slurm, each score by one job."""
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    project.write_config(configuration(shards=1))
    code, output = project.snakemake("demo-table2", OTHER_SCORE)
    assert code == 0, output
    return project


@pytest.fixture(scope="module")
def submitted(cluster, tmp_path_factory):
    """A project in which the page's commands ran, and what they printed."""
    project = Project(tmp_path_factory.mktemp("submitted"))
    project.write_config(configuration(shards=2))
    clone, setup, activate, partitions, run = commands_of(
        "docs/cluster.md", "From nothing to running jobs"
    )
    # The project is the clone; that setup makes an environment is what .ci/run begins with.
    assert clone.startswith("git clone ")
    assert setup == "make setup"
    (project.folder / ".venv").symlink_to(ROOT / ".venv")
    look = "sed -i 's/^  gpu:/&\\n    max_gpu: 2/' partitions.yaml"
    started = in_shell(project, activate, partitions, look, f"{run} --configfile small.yaml")
    output = started.communicate()[0]
    assert started.returncode == 0, output
    return project, output


def test_each_job_is_in_the_queue_s_history_with_what_its_rule_asks_for(submitted):
    _, output = submitted
    stats = output.partition("Job stats:")[2].partition("\n\n")[0]
    expected = dict(re.findall(r"^([\w-]+) +(\d+)$", stats, re.M))
    del expected["demo-table2"], expected["total"]  # these compute nothing
    jobs = history(output)
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert expected["score_shard"] == "2"
    assert expected == {
        rule: str(sum(job.rule == rule for job in jobs)) for rule in {job.rule for job in jobs}
    }
    (prune,) = history(output, "prune_model")
    assert prune[3:] == ("gpu", "8000M", "4:00:00")
    (table,) = history(output, "make_table")
    assert table[3:] == ("cpu", "1000M", "10:00")


def test_the_bytes_are_those_of_a_run_without_slurm_and_without_shards(submitted, undisturbed):
    made, expected = numbers(submitted[0]), numbers(undisturbed)
    del expected[OTHER_SCORE.removeprefix("results/")]
    assert made == expected
    assert f"{SCORES}/small.parquet".removeprefix("results/") in made


def test_a_job_gets_its_gpu_from_slurm(submitted):
    project, output = submitted
    given = {}
    for log in project.folder.glob("results/logs/**/*.log"):
        number = re.search(r"SLURM_JOB_ID=(\d+)", log.read_text())[1]
        given[number] = re.findall(r"CUDA_VISIBLE_DEVICES=(.*)", log.read_text())
    jobs = history(output)
    assert set(given) == {job.number for job in jobs}
    for job in jobs:
        asks = "TresPerJob=gres:gpu:1" in query("scontrol", "show", "job", job.number)
        assert asks == (job.rule in ON_GPU) == (job.partition == "gpu"), job
        assert given[job.number] in ([["0"], ["1"]] if asks else [[]]), job
    shards = [given[job.number] for job in jobs if job.rule == "score_shard"]
    assert sorted(shards) == [["0"], ["1"]]  # side by side


def test_the_one_gpu_of_the_default_profile_limits_no_cluster(submitted, tmp_path):
    project = submitted[0].copy(tmp_path)
    shutil.rmtree(project.folder / SCORES)
    command = "snakemake --slurm-partition-config partitions.yaml --configfile small.yaml -- scores"
    started = in_shell(
        project, "source .venv/bin/activate", f"SNAKEMAKE_PROFILE=profiles/slurm {command}"
    )
    output = started.communicate()[0]
    assert started.returncode == 0, output
    assert "workflow specific profile profiles/default" in output
    logs = project.folder.glob("results/logs/score_shard/**/*.log")
    given = [re.findall(r"CUDA_VISIBLE_DEVICES=(.*)", log.read_text()) for log in logs]
    assert sorted(given) == [["0"], ["1"]]  # side by side


def test_a_job_that_was_promised_a_gpu_does_not_compute_without(submitted):
    project, _ = submitted
    run = "snakemake --profile profiles/slurm --workflow-profile none "
    run += "--slurm-partition-config partitions.yaml "
    run += f"--configfile small.yaml --retries 0 --config device=cuda -- {OTHER_SCORE}"
    started = in_shell(project, "source .venv/bin/activate", run)
    output = started.communicate()[0]
    assert started.returncode != 0
    assert "device 'cuda' is not available" in output
    assert re.search(r"CUDA_VISIBLE_DEVICES=[01]\n", output)
    assert not (project.folder / OTHER_SCORE).exists()


def stopped(project, *scripts):
    """A condition: the first job of each script stands still, whichever of them starts first."""
    seen = set()

    def all_stopped():
        for script in scripts:
            if script not in seen and (running := jobs_of(project, script)):
                os.kill(running[0], signal.SIGSTOP)
                seen.add(script)
        return len(seen) == len(scripts)

    return all_stopped


@pytest.fixture(scope="module")
def disturbed(submitted, tmp_path_factory):
    """A project in which three jobs met a fault each, and what the run printed.

    One is cancelled, one has less memory than it needs, one stands still until its time is over.
    """
    project = submitted[0].copy(tmp_path_factory.mktemp("disturbed"))
    for file in (MASKS, DENSE):
        shutil.rmtree((project.folder / file).parent)
    text = (ROOT / "docs" / "cluster.md").read_text()
    site = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    del site["default-resources"]["slurm_account"]  # there are none without a database
    site["default-resources"]["slurm_extra"] = "'--nice=1'"
    (project.folder / "cluster.yaml").write_text(yaml.safe_dump(site))
    (run,) = commands_of("docs/cluster.md", "What jobs ask for")
    run = run.replace("demo-table2", "").replace("--config device=cuda", "--configfile small.yaml")
    with (
        project.edit("workflow/rules/score.smk", "mem_mb=growing(8000)", "mem_mb=growing(400)"),
        project.edit("workflow/rules/evaluate.smk", "runtime=growing(480)", "runtime=growing(1)"),
    ):
        started = in_shell(
            project, "source .venv/bin/activate", f"{run} -- {MASKS} {DENSE} {OTHER_SCORE}"
        )
        wait_for(stopped(project, "evaluate_model.py", "prune_model.py"), started)
        running = query("squeue", "--noheader", "--states=R", "--format=%i %k")
        subprocess.run(["scancel", re.search(r"(\d+) rule_prune_model", running)[1]], check=True)
        output = started.communicate()[0]
    assert started.returncode == 0, output
    return project, output


def test_a_cancelled_job_is_submitted_again(disturbed, undisturbed):
    project, output = disturbed
    jobs = history(output, "prune_model")
    assert [job.state for job in jobs] == ["CANCELLED", "COMPLETED"]
    assert [job.memory for job in jobs] == ["62.50G", "125G"]  # 64000 MB from cluster.yaml
    assert numbers(project) == numbers(undisturbed)


def test_a_job_over_its_memory_is_submitted_again_with_more(disturbed, undisturbed):
    project, output = disturbed
    *killed, ended = history(output, "compute_scores")
    assert killed
    assert {job.state for job in killed} <= {"FAILED", "OUT_OF_MEMORY"}
    assert ended.state == "COMPLETED"
    assert [job.memory for job in (*killed, ended)] == ["400M", "800M", "1200M"][: len(killed) + 1]
    assert numbers(project) == numbers(undisturbed)


def test_a_job_over_its_time_is_submitted_again_with_more(disturbed, undisturbed):
    project, output = disturbed
    *killed, ended = history(output, "evaluate_model")
    assert killed
    assert {job.state for job in killed} == {"TIMEOUT"}
    assert ended.state == "COMPLETED"
    # The second is enough where the machine is not busy.
    assert [job.time for job in (*killed, ended)] == ["1:00", "2:00", "3:00"][: len(killed) + 1]
    assert numbers(project) == numbers(undisturbed)
