"""Projects that tests share."""

import os

import pytest
from filelock import FileLock

from helpers.projects import Project


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project in which nothing has been made."""
    return Project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project in which the small DAG has run to its end; all test processes share that run."""
    mine = tmp_path_factory.mktemp("finished")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _run(Project(mine))
    shared = mine.parents[1] / "finished"  # beside the folders of the processes
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            _run(Project(shared))
    return Project(mine, shared / "ecoflap")


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory):
    """A copy of the finished project to change and to damage."""
    return finished.copy(tmp_path_factory.mktemp("copied"))


def _run(project):
    code, output = project.snakemake()
    assert code == 0, output
    return project
