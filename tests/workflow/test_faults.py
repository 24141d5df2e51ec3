"""Kills and damage: each run ends with the bytes of one that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import time

from helpers.projects import ROOT, Project, jobs_of, numbers, start, wait_for

SCORES = "results/scores/demo-clip/scenes-image-captions/seed0/small.parquet"
MASKS = "results/pruned/demo-clip/wanda/seed0/0.5/changes.safetensors"
PLAN = "results/allocations/demo-clip/small-ecoflap/seed0/0.5.json"
LIBRARY = str(ROOT / "workflow" / "scripts")


def test_killed_runs_end_with_the_same_bytes_in_another_folder_with_other_cores(finished, tmp_path):
    """Kills a job while it computes, then Snakemake while a job runs; `finished` has two cores."""
    project = Project(tmp_path)
    run = start(project)
    wait_for(lambda: jobs_of(project, "compute_scores.py"), run)
    os.kill(jobs_of(project, "compute_scores.py")[0], signal.SIGKILL)
    assert run.wait() != 0
    assert not (project.folder / SCORES).exists()

    run = start(project)
    wait_for(lambda: jobs_of(project, "prune_model.py"), run)
    run.kill()
    run.wait()
    code, output = project.snakemake()
    assert code != 0
    assert "--unlock" in output
    assert project.snakemake("--unlock")[0] == 0
    run = start(project)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert numbers(project) == numbers(finished)
    assert not list(project.folder.glob("results/**/*.tmp"))


def test_a_writer_killed_in_the_middle_leaves_what_was_there(tmp_path):
    path = tmp_path / "results.safetensors"
    code = """
import sys, torch
from ecoflap import artifacts
head = artifacts.header("large", rule="test", code="", config={})
value = torch.full((int(sys.argv[2]),), float(sys.argv[3]))
artifacts.write_tensors(sys.argv[1], {"t": value}, head)
"""

    def writer(size, value):
        command = [sys.executable, "-c", code, str(path), str(size), str(value)]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": LIBRARY})

    assert writer(100, 1.0).wait() == 0
    before = path.read_bytes()
    large = writer(150_000_000, 2.0)
    temporary = path.with_name(path.name + ".tmp")
    while not (temporary.exists() and temporary.stat().st_size):
        assert large.poll() is None
        time.sleep(0.001)
    large.kill()
    large.wait()
    assert path.read_bytes() == before
    assert writer(100, 1.0).wait() == 0
    assert path.read_bytes() == before
    assert not temporary.exists()


def older(path):
    """Makes of an artifact what the version before would have written."""
    content = json.loads(path.read_text())
    content["ecoflap"]["schema_version"] = 2
    del content["ecoflap"]["digest"]
    path.write_text(json.dumps(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


# What is damaged, and the rule that reads it; in an order in which each failure, which deletes what
# its rule makes, leaves the next file to damage.
DAMAGES = [
    (cut, MASKS, "evaluate_model", "cannot read"),
    (older, PLAN, "prune_model", "has schema version 2. Allowed: 3"),
    (flip, SCORES, "allocate_sparsity", "its bytes are not those that were written"),
]


def test_a_damaged_artifact_is_told_before_it_is_used(finished, tmp_path):
    project = finished.copy(tmp_path)
    for damage, file, rule, said in DAMAGES:
        path = project.folder / file
        times = os.stat(path)
        damage(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # Snakemake sees no change
        code, output = project.snakemake("--forcerun", rule, "--until", rule)
        assert code != 0
        assert file in output
        assert said in output
        assert "Traceback" not in output
        path.unlink()
    code, output = project.snakemake("--forcerun", "compute_scores")
    assert code == 0, output
    assert numbers(project) == numbers(finished)
