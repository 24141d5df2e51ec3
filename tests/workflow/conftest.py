"""Projects that tests share."""

import copy
import shutil

import pytest
from projects import Project


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project in which nothing has been made."""
    return Project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project in which the small DAG has run to its end."""
    made = Project(tmp_path_factory.mktemp("finished"))
    code, output = made.snakemake()
    assert code == 0, output
    return made


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory):
    """A copy of the finished project to change and to damage."""
    project = copy.copy(finished)
    project.folder = tmp_path_factory.mktemp("copied") / "ecoflap"
    shutil.copytree(finished.folder, project.folder, symlinks=True)
    return project
