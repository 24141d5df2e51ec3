"""What `finetune` is asked for, filled in and checked, also where no configuration was."""

import math
import numbers
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflap.data.formats import FORMATS
from ecoflap.data.settings import sample_problems
from ecoflap.errors import ConfigError, message
from ecoflap.finetuning.objective import AUTOCAST
from ecoflap.finetuning.step_settings import lone_problems
from ecoflap.plugins import FAMILIES, unknown

if TYPE_CHECKING:
    from ecoflap.models.model import Model

CHOICES = {"method": ("full", "sparselora"), "precision": tuple(AUTOCAST)}
NEEDED = ("method", "data", "epochs", "learning_rate", "batch_size")
DEFAULTS = MappingProxyType({"warmup": 0, "weight_decay": 0.05, "precision": "bfloat16"})
WHOLE = {"epochs": 1, "warmup": 0, "batch_size": 1, "rank": 1}  # the least that each may be
ARGUMENTS = {"batch_size": 1, "seed": 0}
SAMPLES = {"samples": 1, "held_out": 0, "window": 2}
RANGES = {
    "learning_rate": ("more than 0", lambda value: value > 0),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "distillation": ("more than 0, at most 1", lambda value: 0 < value <= 1),
}
PLACE = ("name", "split", "view")  # what a data set is asked for by
LOCATED = ("layout", "folder", "hub", "revision", "files", "columns")  # where it is
PART = ("dataset", "format", "samples", "held_out", "prompt", "window")


def checked(model: "Model", settings: Mapping, *, batch_size: int, seed: int) -> dict:
    """Returns settings with their defaults.

    Args:
        model: What is to be trained.
        settings: Keys of config/finetuning.yaml.
        batch_size: Samples per forward.
        seed: Of the run.

    Raises:
        ConfigError: naming all that is wrong.
    """
    filled = {**settings, **{k: v for k, v in DEFAULTS.items() if k not in settings}}
    family = FAMILIES.get(model.family)
    formats = family.formats if family else tuple(FORMATS)
    found = [*_key_problems(filled), *_value_problems(filled), *_data_problems(filled, formats)]
    found += _count_problems({"batch_size": batch_size, "seed": seed}, ARGUMENTS, sign="=")
    if not found and family and family.contrastive:
        found += lone_problems(filled, batch_size)
    if found:
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise ConfigError(f"the settings of fine-tuning have {len(found)} problem(s):\n{listed}")
    return filled


def _key_problems(settings: Mapping) -> Iterator[str]:
    low_rank = settings.get("method") == "sparselora"
    known = (*NEEDED, *DEFAULTS, "distillation", "rank")
    for key in (*NEEDED, "rank") if low_rank else NEEDED:
        if key not in settings:
            yield message(f"no {key}", _allowed(key), "Add the key.")
    for key in settings:
        if key not in known:
            yield unknown("key", key, known)
    if "rank" in settings and not low_rank:
        yield message("a rank", "a rank with the method sparselora alone", "Remove it.")


def _allowed(key: str) -> str:
    if key in WHOLE:
        return f"a whole number from {WHOLE[key]}"
    if key in RANGES:
        return f"a number, {RANGES[key][0]}"
    return ", ".join(CHOICES[key]) if key in CHOICES else "entries with dataset and format"


def _value_problems(settings: Mapping) -> Iterator[str]:
    for key, choices in CHOICES.items():
        if settings.get(key, choices[0]) not in choices:
            yield message(f"{key} {settings[key]!r}", _allowed(key), "Choose one.")
    yield from _count_problems(settings, WHOLE)
    for key, (_, fits) in RANGES.items():
        if key in settings and not (_number(settings[key]) and fits(settings[key])):
            yield message(f"{key} {settings[key]!r}", _allowed(key), "Correct it.")


def _count_problems(values: Mapping, least: Mapping, *, sign: str = " ") -> Iterator[str]:
    """Yields what is no whole number, or too small; what is not there is not asked for."""
    for key in [key for key in least if key in values]:
        value = values[key]
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least[key]:
            allowed = f"a whole number from {least[key]}"
            yield message(f"{key}{sign}{value!r}", allowed, "Correct it.")


def _data_problems(settings: Mapping, formats: tuple[str, ...]) -> Iterator[str]:
    parts = settings.get("data", ())
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
        yield message(
            "data that is no list of mappings", "entries with dataset, format", "Mend it."
        )
        return
    if not parts and "data" in settings:
        yield message("empty data", "at least one entry with dataset and format", "Add one.")
    for number, part in enumerate(parts):
        for problem in _part_problems(part, formats):
            yield f"data.{number}: {problem}"


def _part_problems(part: Mapping, formats: tuple[str, ...]) -> Iterator[str]:
    dataset, form = part.get("dataset"), part.get("format")
    for key in part:
        if key not in PART:
            yield unknown("key", key, PART)
    if form not in formats:
        yield unknown("format of samples for this model", form, formats)
    yield from _count_problems(part, SAMPLES)
    if not isinstance(dataset, Mapping) or any(key not in dataset for key in PLACE):
        yield message(f"dataset {dataset!r}", f"a mapping with {', '.join(PLACE)}", "Correct it.")
        return
    for key in dataset:
        if key not in (*PLACE, "limit", *LOCATED):
            yield unknown("key of a data set", key, (*PLACE, "limit", *LOCATED))
    yield from _count_problems(dataset, {"limit": 1})
    if form in formats:
        yield from sample_problems(part)


def _number(value: object) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)
