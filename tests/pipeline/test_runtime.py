"""A job ends with the workflow that started it, and its log says where it ran."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from ecoflap_pipeline.code import SCRIPTS, imported_files

# What shows and checks results; the other scripts are the stages.
SHOWING = {"describe_run", "make_table", "plot_figure", "preflight", "verify"}

JOB = """
import sys, time
from ecoflap_pipeline import job
job.start_job(sys.argv[1])
open(sys.argv[2], "w").close()
time.sleep(60)
"""
PARENT = """
import subprocess, sys
print(subprocess.Popen([sys.executable, *sys.argv[1:]]).pid, flush=True)
input()
"""


def test_a_job_does_not_outlive_a_killed_workflow(tmp_path):
    started = tmp_path / "started"
    command = [sys.executable, "-c", PARENT, "-c", JOB, str(tmp_path / "log"), str(started)]
    parent = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    job = int(parent.stdout.readline())
    assert wait_until(started.exists)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not running(job))
    assert "is gone: ending" in (tmp_path / "log").read_text()


def test_the_log_says_where_a_job_ran_and_what_it_was_given(tmp_path):
    code = "import sys; from ecoflap_pipeline import job; job.start_job(sys.argv[1])"
    given = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "2,3"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), **given},
        check=True,
    )
    said = f"on {socket.gethostname()}, SLURM_JOB_ID=7, CUDA_VISIBLE_DEVICES=2,3\n"
    assert said in (tmp_path / "log").read_text()


def running(pid: int) -> bool:
    """Tells whether a process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.strip().startswith("Z")


def wait_until(condition) -> bool:
    """Waits up to half a minute."""
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "script", [path for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in SHOWING]
)
def test_no_stage_runs_again_because_a_check_of_the_configuration_changed(script):
    read = {path.stem for path in imported_files(script, SCRIPTS)}
    assert "artifacts" in read
    assert not read & {"plugins", "errors", "job", "check", "references", "params", "targets"}
