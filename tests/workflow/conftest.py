"""Projects that tests share."""

import pytest
from projects import Project

SHARED = ("finished", "real")  # fixtures that run a whole DAG


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests that share a finished run in one worker process, which makes it once."""
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


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
