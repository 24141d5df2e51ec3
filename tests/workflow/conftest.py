"""A copy of the repository to run in, and a small configuration of the demo."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SMALL = {
    "run": ["small-table", "small-figure"],
    "calibrations": {"scenes-image-captions": {"samples": 32}},
    "tasks": {name: {"dataset": {"limit": 40}} for name in ("shape", "colour")},
    "suites": {"demo-zero-shot": ["shape", "colour"]},
    "scores": {"small": {"estimator": "gradnorm", "samples": 32, "batch_size": 16}},
    "variants": {
        "small-ecoflap": {
            "label": "ECoFLaP",
            "score": "small",
            "allocation": "ecoflap",
            "max_sparsity": "+0.1",
            "criterion": "wanda",
        }
    },
    "experiments": {
        "small-table": {
            "kind": "table",
            "title": "Small",
            "models": ["demo-clip"],
            "variants": ["global-magnitude", "wanda", "small-ecoflap"],
            "sparsities": ["0.5"],
            "tasks": ["shape", "colour"],
            "published": "table2-clip",
        },
        "small-figure": {
            "kind": "tradeoff",
            "title": "Small",
            "models": ["demo-clip"],
            "variants": ["wanda", "small-ecoflap"],
            "sparsities": ["0.5"],
            "tasks": ["shape"],
        },
    },
}


SHARED = ("finished", "real")  # fixtures that run a whole DAG


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests that share a finished run in one worker process, which makes it once."""
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


class Project:
    """A working copy in which snakemake runs."""

    def __init__(self, folder: Path):
        """Copies what the repository holds, without environment, results and caches."""
        ignored = shutil.ignore_patterns(
            ".venv*", ".git", ".snakemake", "results", "__pycache__", ".*_cache", ".hypothesis"
        )
        self.folder = folder / "ecoflap"
        shutil.copytree(ROOT, self.folder, ignore=ignored)
        self.write_config(SMALL)

    def write_config(self, content: dict) -> None:
        """Writes the config file that runs use."""
        (self.folder / "small.yaml").write_text(yaml.safe_dump(content))

    def snakemake(
        self,
        *arguments: str,
        configfile: str = "small.yaml",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, str]:
        """Runs snakemake; returns its exit code and all that it printed."""
        command = [sys.executable, "-m", "snakemake"]
        command += ["--configfile", configfile] if configfile else []
        command += ["--profile", "workflow/profiles/local", "--cores", "2"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def planned(self, *arguments: str, **options: str) -> dict[str, int]:
        """Returns how many jobs of each rule a dry run would make."""
        code, output = self.snakemake("--dry-run", *arguments, **options)
        assert code == 0, output
        stats = output.partition("Job stats:")[2].partition("\n\n")[0]
        return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", stats, re.M)}

    def edit(self, path: str, old: str, new: str):
        """Replaces text in a file for the length of a ``with``."""
        return _Edit(self.folder / path, old, new)


class _Edit:
    def __init__(self, path: Path, old: str, new: str):
        self.path, self.old, self.new = path, old, new

    def __enter__(self) -> None:
        self.text, self.stat = self.path.read_text(), self.path.stat()
        assert self.old in self.text
        self.path.write_text(self.text.replace(self.old, self.new))

    def __exit__(self, *_: object) -> None:
        self.path.write_text(self.text)
        os.utime(self.path, ns=(self.stat.st_atime_ns, self.stat.st_mtime_ns))


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
