"""Runs a job with the Python of another environment, and with no package of Snakemake's own.

Snakemake writes a rule's script to a file, with a preamble that puts the search path of its own
Python behind the script's: without that a Python that has no snakemake could not read the rule's
parameters. A package that the other environment lacks would be taken from there too, built for
other versions of what it stands on.
"""

import importlib.util
import os
import site
import sys
from pathlib import Path

from ecoflap.errors import ConfigError, message

MARK = "ECOFLAP_PYTHON"  # set for the process that was started instead of the first
# What the scripts of rules that run a model stand on.
NEEDED = ("numpy", "pandas", "pyarrow", "safetensors", "torch", "tqdm", "transformers", "PIL")


def change_to(python: str | None) -> None:
    """Starts the running script again with another interpreter, in this process's place.

    Args:
        python: Path of the interpreter; None to go on with this one.
    """
    if python is not None and os.environ.get(MARK) != python:
        os.environ[MARK] = python
        os.execv(python, [python, *sys.argv])


def use_own_packages() -> None:
    """Takes the packages of other environments off the search path.

    Raises:
        ConfigError: if a package that the library stands on comes from another environment.
    """
    foreign = [path for path in sys.path if _is_foreign(path)]
    for name in NEEDED if foreign else ():
        spec = importlib.util.find_spec(name)
        if spec is not None and any(Path(path) in Path(spec.origin).parents for path in foreign):
            raise ConfigError(
                message(
                    f"the environment {sys.prefix} has no {name}: it would be taken from "
                    f"{Path(spec.origin).parent}",
                    f"environments with {', '.join(NEEDED)} of their own",
                    "Install what envs/<environment>.yaml pins: make setup-<environment>.",
                )
            )
    sys.path[:] = [path for path in sys.path if path not in foreign]


def _is_foreign(path: str) -> bool:
    """Tells whether a folder of the search path holds the packages of another Python."""
    own = [*site.getsitepackages(), site.getusersitepackages()]
    own += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return Path(path).name in ("site-packages", "dist-packages") and path not in own
