"""What must be there before the first job that runs a model starts. Needs no torch."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ecoflap.errors import message
from ecoflap.plugins import ENVIRONMENTS, FAMILIES, unknown


def interpreter(config: Mapping, model: str) -> str | None:
    """Returns the Python that the config names for a model; None: that of the rule.

    Args:
        config: The merged configuration.
        model: Its entry in ``models``.
    """
    environment = FAMILIES[config["models"][model]["family"]].environment
    python = config["environments"].get(environment)
    return os.path.abspath(python) if python else None


def environment_problems(config: Mapping) -> Iterator[str]:
    """Yields what is wrong with the interpreters that a config names."""
    for name, python in config["environments"].items():
        if name not in ENVIRONMENTS:
            yield "environments: " + unknown("environment", name, ENVIRONMENTS)
        elif not (Path(python).is_file() and os.access(python, os.X_OK)):
            yield message(
                f"environments.{name}: no Python in '{python}'",
                "the path of an interpreter, such as that of a venv",
                f"Make one with `make setup-{name}`: .venv-{name}/bin/python.",
            )


def missing(
    config: Mapping, running: Collection[str], preparing: Collection[str], *, conda: bool
) -> Iterator[str]:
    """Yields what jobs would stop at.

    Args:
        config: The merged configuration.
        running: The models that jobs load.
        preparing: Those whose checkpoint a job fetches.
        conda: Whether Snakemake makes the environments of rules itself.
    """
    for name in sorted(running):
        family = config["models"][name]["family"]
        environment = FAMILIES[family].environment
        if environment in ENVIRONMENTS and not conda and not interpreter(config, name):
            yield message(
                f"models.{name}: the family {family} needs the environment {environment}",
                f"--sdm conda, or a Python under environments.{environment}",
                f"Run `make setup-{environment}` and set environments: "
                f"{{{environment}: .venv-{environment}/bin/python}}.",
            )
    for name in sorted(preparing):
        folder = config["models"][name]["source"].get("folder")
        file = FAMILIES[config["models"][name]["family"]].config_file
        if folder is not None and not Path(folder, file).is_file():
            yield message(
                f"models.{name}: no model in source.folder '{folder}'",
                f"a folder with {file}",
                "Correct the path; it counts from where snakemake runs.",
            )


def absent(where: Mapping) -> list[str]:
    """Returns the folder and the files of a split that are not here, of those that have one name.

    Args:
        where: What `points.located` returned.
    """
    folder, files = where.get("folder"), where.get("files", {})
    if folder is None:
        return []
    words = ("split", "part", "config")  # which name no file
    named = [n for key, n in files.items() if key not in words and not set(n) & set("{}*")]
    wanted = [Path(folder), *(Path(folder, name) for name in named)]
    return [str(path) for path in wanted if not path.exists()]


def gpu_problems() -> Iterator[str]:
    """Yields why this machine runs no jobs on a GPU."""
    # Another process: Snakemake itself needs no torch, and importing it takes seconds.
    code = "import torch; raise SystemExit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode:
        yield message(
            "device 'cuda', but torch sees no GPU here",
            "cuda where there is a GPU, cpu, auto",
            "Use --config device=cpu, or run where a GPU is.",
        )


def slurm_problems() -> Iterator[str]:
    """Yields why this machine takes no jobs for Slurm."""
    said = "there is no command sinfo"
    if shutil.which("sinfo"):
        asked = subprocess.run(
            ["sinfo"], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if asked.returncode == 0:
            return
        said = "\n".join(asked.stderr.splitlines()[-1:])
    yield message(
        f"no Slurm answers here ({said})",
        "the profile profiles/slurm where jobs can be submitted, such as a login node",
        "Log in there, or run without --profile profiles/slurm.",
    )
