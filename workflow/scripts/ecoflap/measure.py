"""What a computation costs: seconds, peak memory, energy; and the versions that it ran with."""

import contextlib
import importlib.metadata
import platform
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DIGITS = {"seconds": 3, "peak_memory_mb": 1, "joules": 1}  # after the point, in artifacts
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
        self._joules = joules(self.device)
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
        if self._joules is not None and (now := joules(self.device)) is not None:
            self.joules = now - self._joules
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
        total: dict[str, Any] = total_cost([own] if self.earlier is None else [self.earlier, own])
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


def peak_mb() -> float:
    """Returns the largest resident set of this process so far, in MiB."""
    peak = _status_mb("VmHWM:")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """Returns the resident set of this process, in MiB."""
    resident = _status_mb("VmRSS:")
    return resident if resident is not None else peak_mb()


def _status_mb(key: str) -> float | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return None


def _reset_peak() -> None:
    # Linux only; elsewhere the peak is that of the whole process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def joules(device: str) -> float | None:
    """Returns the energy that a GPU has used since its driver was loaded.

    It is the whole board's: what other processes use on it counts too.

    Args:
        device: A torch device.

    Returns:
        Joules; None for a CPU and where driver or GPU do not tell it.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    try:
        import pynvml
    except ImportError:
        return None
    # By its UUID: torch counts the visible devices only, the driver all of them.
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except pynvml.NVMLError:
        return None
