"""What surrounds a computation: log, seeds, device, peak memory, versions, code hash."""

import ast
import contextlib
import ctypes
import errno
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import re
import resource
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ecoflap import energy, interpreters
from ecoflap.errors import ConfigError, EcoflapError, message

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# safetensors and shutil have errors of their own, with the system's number in their text.
NO_ROOM_IN_TEXT = re.compile(rf"(os error|Errno) ({'|'.join(map(str, NO_ROOM))})\b")
DIGITS = {"seconds": 3, "peak_memory_mb": 1, "joules": 1}  # after the point, in artifacts
PACKAGE = Path(__file__).parent
LIBRARIES = (
    "torch",
    "transformers",
    "numpy",
    "safetensors",
    "pyarrow",
    "torchvision",
    "timm",
    "salesforce-lavis",
    "open_clip_torch",
)


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
    interpreters.change_to(python)
    interpreters.use_own_packages()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    set_threads(threads)
    sys.excepthook = functools.partial(_tell, terminal)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    log = logging.getLogger("ecoflap.job")
    log.info("%s", _place())
    return log


def write_utf8() -> None:
    """Makes this process print UTF-8, also where the locale is another."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


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


def export_library() -> None:
    """Makes child processes import this copy of the package, not one installed elsewhere."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def set_threads(threads: int) -> None:
    """Sets the number of CPU threads, without importing torch for those who do not use it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def resolve_device(name: str = "auto") -> str:
    """Returns the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: for any other name, or if a GPU is asked for and none is visible.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(message(f"device '{name}'", "auto, cpu, cuda, cuda:N", "Correct it."))
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            message(f"device '{name}' is not available", "auto, cpu", "Set device: auto or cpu.")
        )
    return name


def seed_from(*parts: object) -> int:
    """Returns a 63-bit seed for a name, so that randomness never depends on order."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Returns the versions of Python and of the libraries that can change a number."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Cost:
    """Measures wall time, peak memory and energy of a ``with`` block.

    Attributes:
        earlier: What `as_dict` told of earlier parts of the same job, which count too; None if
            there were none.
        seconds: Wall time, filled on exit.
        peak_memory_mb: Peak of the device's allocator in MiB; on a CPU the memory held at the
            start plus the growth of the resident set.
        joules: Energy that the GPU used meanwhile; None where nothing tells it.
    """

    def __init__(self, device: str = "cpu", held_mb: float = 0.0):
        """Prepares a measurement.

        Args:
            device: Device whose memory is measured.
            held_mb: Memory that the model holds before the start, in MiB.
        """
        self.device = device
        self.held_mb = held_mb
        self.earlier: Mapping | None = None
        self.seconds = 0.0
        self.peak_memory_mb = 0.0
        self.joules: float | None = None

    def __enter__(self) -> "Cost":
        """Starts the clock."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        self._resident = resident_mb()
        _reset_peak()
        self._joules = energy.joules(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the clock and reads the peak."""
        self._read()

    def so_far(self) -> dict[str, float | str]:
        """Returns what `as_dict` would tell if the block ended here."""
        self._read()
        return self.as_dict()

    def _read(self) -> None:
        self.seconds = time.perf_counter() - self._start
        if self._joules is not None:
            self.joules = energy.joules(self.device) - self._joules
        if self.device.startswith("cuda"):
            import torch

            self.peak_memory_mb = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            self.peak_memory_mb = self.held_mb + max(0.0, peak_mb() - self._resident)

    def as_dict(self) -> dict[str, float | str]:
        """Returns the numbers for an artifact; ``joules`` only where they are known."""
        used = {} if self.joules is None else {"joules": self.joules}
        own = {
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "device": self.device,
            **used,
        }
        total = total_cost([own] if self.earlier is None else [self.earlier, own])
        return {k: round(v, DIGITS[k]) if k in DIGITS else v for k, v in total.items()}


def total_cost(parts: Sequence[Mapping]) -> dict[str, float | str]:
    """Adds up what jobs cost that were one job in several parts.

    Args:
        parts: At least one `Cost.as_dict`; further keys are left out.

    Returns:
        The same keys: sums, the largest peak; ``joules`` if all parts know them.
    """
    found = {
        "seconds": sum(part["seconds"] for part in parts),
        "peak_memory_mb": max(part["peak_memory_mb"] for part in parts),
        "device": parts[0]["device"],
    }
    if all("joules" in part for part in parts):
        found["joules"] = sum(part["joules"] for part in parts)
    return found


def _status_mb(key: str) -> float | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return None


def peak_mb() -> float:
    """Returns the largest resident set of this process so far, in MiB."""
    peak = _status_mb("VmHWM:")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """Returns the resident set of this process, in MiB."""
    resident = _status_mb("VmRSS:")
    return resident if resident is not None else peak_mb()


def _reset_peak() -> None:
    # Linux only; elsewhere the peak is that of the whole process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def return_memory() -> None:
    """Gives freed memory back to the system, which glibc's allocator keeps otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@functools.cache  # files are read for many rules; one that is edited has another time or size
def _imports(path: Path, scripts: Path, _mtime: int, _size: int) -> tuple[Path, ...]:
    """Returns the modules of this package that a file imports; ``from a import b``: a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(file for name in names if (file := module_file(name, scripts)))


def imported_files(entry: Path, scripts: Path) -> set[Path]:
    """Returns the file and every module of this package that it imports, directly or not.

    Modules imported by name at run time (plug-ins of a registry) are not seen.

    Args:
        entry: The file.
        scripts: The folder that the package is in.
    """
    seen: set[Path] = set()
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        state = path.stat()
        waiting += _imports(path, scripts, state.st_mtime_ns, state.st_size)
    return seen


def module_file(name: str, scripts: Path) -> Path | None:
    """Returns the source of a module of this package, or None for any other name."""
    parts = name.split(".")
    if parts[0] != "ecoflap":
        return None
    path = scripts.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_of(scripts: Path, script: str, plugins: Iterable[str] = ()) -> dict:
    """Describes the code of a rule: its script, the modules it imports, and the plug-ins it loads.

    Snakemake does not notice an edited module; rules put this into ``params``.

    Args:
        scripts: The folder of the rules' scripts, and of the package.
        script: The rule's script.
        plugins: Dotted names of modules that the script imports by name.

    Returns:
        ``script``, ``plugins``, and ``hash``, which changes when any of these files does.
    """
    plugins = sorted(set(plugins))
    files = imported_files(scripts / script, scripts)
    for name in plugins:
        path = module_file(name, scripts)
        if path is None:
            raise ConfigError(f"plug-in module '{name}' has no source file in this package")
        files |= imported_files(path, scripts)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"script": script, "plugins": plugins, "hash": digest.hexdigest()[:16]}
