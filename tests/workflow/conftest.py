"""Projects that tests share."""

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
