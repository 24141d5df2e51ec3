"""A copy of the repository to run in, a small configuration of the demo, and what a run made."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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
# More samples than a view has, which nothing but reading it tells: no scene of one thing is in it.
TOO_MANY = {
    "dataset": {"name": "scenes", "split": "calibration", "view": "relation"},
    "format": "image-label",
    "prompt": "a {label}",
    "samples": 1900,
}
NUMBERS = ("metrics.json", "predictions.parquet", "changes.safetensors")  # layers.parquet has times


class Project:
    """A working copy in which snakemake runs."""

    def __init__(self, folder: Path, made: Path | None = None):
        """Copies a project with all that was made in it, or what the repository holds."""
        self.folder = folder / "ecoflap"
        if made:
            shutil.copytree(made, self.folder, symlinks=True)
            return
        ignored = shutil.ignore_patterns(
            ".venv*", ".git", ".snakemake", "results", "__pycache__", ".*_cache", ".hypothesis"
        )
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
        command += ["--cores", "2"]
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
        return {name: int(n) for name, n in re.findall(r"^([\w-]+) +(\d+)$", stats, re.M)}

    def copy(self, folder: Path) -> "Project":
        """Returns a copy to change, in which nothing that was made here runs again."""
        return Project(folder, self.folder)

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


def numbers(project):
    """Hashes of all that a run computes: what it took in time and memory differs each time."""
    results = project.folder / "results"
    found = [path for name in NUMBERS for path in results.rglob(name)]
    found += results.glob("calibration/**/samples.safetensors")
    found += [*results.glob("scores/**/*.parquet"), *results.glob("allocations/**/*.json")]
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def jobs_of(project, script):
    """Process ids of the jobs of a rule in a project."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode()
                folder = os.readlink(entry / "cwd")
            except OSError:
                continue
            if (
                script in command
                and folder == str(project.folder)
                and "-m\0snakemake" not in command
            ):
                found.append(int(entry.name))
    return found


def start(project, *arguments, cores=1, **options):
    """Starts a small project's workflow and does not wait for it."""
    command = [sys.executable, "-m", "snakemake", "--configfile", "small.yaml"]
    command += ["--cores", str(cores), *arguments]
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
