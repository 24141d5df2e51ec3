"""The device, the threads and the memory that a computation takes."""

import contextlib
import ctypes
import os
import re
import sys

from ecoflap.errors import ConfigError


def resolve_device(name: str = "auto") -> str:
    """Returns the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: for any other name, or if a GPU is asked for and none is visible.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device '{name}'", allowed="auto, cpu, cuda, cuda:N", fix="Correct it.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device '{name}' is not available",
            allowed="auto, cpu",
            fix="Set device: auto or cpu.",
        )
    return name


def set_threads(threads: int) -> None:
    """Sets the number of CPU threads, without importing torch for those who do not use it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def return_memory() -> None:
    """Gives freed memory back to the system, which glibc's allocator keeps otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
