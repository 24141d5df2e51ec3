"""Names the sample that a model cannot take, where a batch of them fails."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import TypeVar

import torch

from ecoflap.errors import DataError, EcoflapError, SampleError

Result = TypeVar("Result")
GPU_FAILED = re.compile("(CUDA|HIP) error")


def naming(samples: Sequence[Mapping], function: Callable[[Sequence[Mapping]], Result]) -> Result:
    """Calls a function with samples; where it fails, finds the sample at fault.

    Args:
        samples: Each with its ``id``.
        function: Encodes them, or runs a model on them; works with any number of them.

    Returns:
        What the function returns.

    Raises:
        DataError: naming the first sample that fails alone, with the reason in a line.
    """
    try:
        return function(samples)
    except Exception as error:
        if not _is_of_samples(error):
            raise
        raise _named(samples, function, error) from error


def _is_of_samples(error: Exception) -> bool:
    """Tells what a sample may be the reason of from other errors."""
    if isinstance(error, EcoflapError):
        return isinstance(error, SampleError)
    return not isinstance(error, MemoryError | torch.OutOfMemoryError)


def _named(samples: Sequence[Mapping], function: Callable, error: Exception) -> DataError:
    # After an error of a GPU nothing runs there any more, so no sample can be tried.
    tried = [] if GPU_FAILED.search(str(error)) else samples
    failures = ((place, _failure(function, sample)) for place, sample in enumerate(tried))
    place, own = next(((place, own) for place, own in failures if own), (None, error))
    first, last = samples[0]["id"], samples[-1]["id"]
    if place is None:
        return _problem(f"one of the samples {first} to {last}", own)
    name = f"the sample {samples[place]['id']}"
    if place == 0 and len(samples) > 1 and _failure(function, samples[1]):
        name += " (and the next one)"
    return _problem(name, own)


def _failure(function: Callable, sample: Mapping) -> Exception | None:
    try:
        function([sample])
    except Exception as error:
        return error
    return None


def _problem(name: str, error: Exception) -> DataError:
    if isinstance(error, SampleError):
        return DataError(f"{name}: {error}")
    frame = extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return DataError(
        f"the model cannot take {name} ({reason}, {Path(frame.filename).name} {frame.lineno})",
        allowed="pictures and texts that the model and its processor take",
        fix="Correct the sample or leave it out; where all fail, correct the processor's files.",
    )
