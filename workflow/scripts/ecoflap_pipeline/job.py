"""How a rule's script starts: its log, its threads, and the Python of its model's environment.

Snakemake writes a rule's script to a file, with a preamble that puts the search path of its own
Python behind the script's: without that a Python that has no snakemake could not read the rule's
parameters. A package that the other environment lacks would be taken from there too, built for
other versions of what it stands on.
"""

import errno
import functools
import importlib.util
import io
import logging
import os
import platform
import re
import site
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ecoflap import artifacts
from ecoflap.devices import set_threads
from ecoflap.errors import ConfigError, EcoflapError, message

if TYPE_CHECKING:
    from snakemake.iocontainers import Snakemake

MARK = "ECOFLAP_PYTHON"  # set for the process that was started instead of the first
# What the scripts of rules that run a model stand on.
NEEDED = (
    *("numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "tqdm", "transformers"),
    "PIL",
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# safetensors and shutil have errors of their own, with the system's number in their text.
NO_ROOM_IN_TEXT = re.compile(rf"(os error|Errno) ({'|'.join(map(str, NO_ROOM))})\b")


def start_job(log_file: str, threads: int = 1, python: str | None = None) -> logging.Logger:
    """Sends everything that this process and its children print to the rule's log.

    If the rule's model needs another Python, the script starts again with that one.

    File descriptors are duplicated, not ``sys.stderr`` replaced, so that native
    code, children and the traceback of a crash land in the log too. An `EcoflapError` leaves its
    message alone.

    Args:
        log_file: The rule's log.
        threads: CPU threads that torch may use.
        python: Interpreter of the model's environment; None to go on with this one.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    write_utf8()
    change_to(python)
    use_own_packages()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    set_threads(threads)
    sys.excepthook = functools.partial(_tell, terminal)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    log = logging.getLogger("ecoflap.job")
    log.info("%s", _place())
    return log


def header(script: "Snakemake", kind: str, *, inputs: Iterable[str] = (), **facts: Any) -> dict:
    """Builds the header of what a job writes: its rule, code, configuration and seed.

    Args:
        script: What Snakemake gives the rule's script.
        kind: What the artifact is.
        inputs: Files whose hashes stand in the header.
        **facts: Further facts, such as the device.
    """
    seed = script.wildcards.get("seed")
    return artifacts.header(
        kind,
        rule=script.rule,
        code=script.params.code,
        config=script.params.config,
        inputs=artifacts.input_hashes(inputs),
        **({} if seed is None else {"seed": int(seed)}),
        **facts,
    )


def point(script: "Snakemake") -> dict[str, str | int]:
    """Returns which pruned model a job is about: model, variant, sparsity and seed."""
    names = {key: script.wildcards[key] for key in ("model", "variant", "sparsity")}
    return {**names, "seed": int(script.wildcards.seed)}


def write_utf8() -> None:
    """Makes this process print UTF-8, also where the locale is another."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


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
        origin = None if spec is None else spec.origin
        if origin is not None and any(Path(path) in Path(origin).parents for path in foreign):
            raise ConfigError(
                f"the environment {sys.prefix} has no {name}: it would be taken from "
                f"{Path(origin).parent}",
                allowed=f"environments with {', '.join(NEEDED)} of their own",
                fix="Install what envs/<environment>.yaml pins: make setup-<environment>.",
            )
    sys.path[:] = [path for path in sys.path if path not in foreign]


def _is_foreign(path: str) -> bool:
    """Tells whether a folder of the search path holds the packages of another Python."""
    own = [*site.getsitepackages(), site.getusersitepackages()]
    own += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return Path(path).name in ("site-packages", "dist-packages") and path not in own


def _place() -> str:
    """Returns where this process runs, with Slurm's job and the GPUs that it was given."""
    names = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return ", ".join([f"on {platform.node()}", *given])


def _tell(
    terminal: int,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Logs what a user can act on without the way there, which says nothing more."""
    if isinstance(error, EcoflapError):
        text = str(error)
    elif getattr(error, "errno", None) in NO_ROOM or NO_ROOM_IN_TEXT.search(str(error)):
        place = getattr(error, "filename", None) or "a file"
        text = message(
            f"cannot write {place} ({error})",
            "a folder that may be written, on a disk with space",
            "Free some space or mend the folder's rights, and run the same command again.",
        )
        os.write(terminal, f"{text}\n".encode())  # the log may be on the same full disk
    else:
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("ecoflap.job").error("%s", text)


def _end_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone.

    A job that outlives a killed workflow would replace what the next run has made.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    logging.getLogger(__name__).error("the workflow that started this job is gone: ending")
    os._exit(1)
