"""What `finetune` is asked for, filled in and checked, also where no configuration was."""

import math
import numbers
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflap.calibration import FORMATS
from ecoflap.checks_steps import lone_problems
from ecoflap.errors import ConfigError, message
from ecoflap.finetuning.objective import AUTOCAST
from ecoflap.registry import FAMILIES, SAMPLE_PROMPTS, VIEWS, unknown

if TYPE_CHECKING:
    from ecoflap.models.base import Model

CHOICES = {"method": ("full", "sparselora"), "precision": tuple(AUTOCAST)}
NEEDED = ("method", "data", "epochs", "learning_rate", "batch_size")
DEFAULTS = MappingProxyType({"warmup": 0, "weight_decay": 0.05, "precision": "bfloat16"})
WHOLE = {"epochs": 1, "warmup": 0, "batch_size": 1, "rank": 1}  # the least that each may be
RANGES = {
    "learning_rate": ("more than 0", lambda value: value > 0),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "distillation": ("more than 0, at most 1", lambda value: 0 < value <= 1),
}
PLACE = ("name", "split", "view")  # what a data set is asked for by
LOCATED = ("layout", "folder", "hub", "revision", "files", "columns")  # where it is
PART = ("dataset", "format", "samples", "held_out", "prompt", "window")
ALSO = {"text-windows": "window", "image-label": "prompt", "prompt-caption": "prompt"}  # needed too


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
    found = [*_key_problems(filled), *_value_problems(filled), *_data_problems(model, filled)]
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not _whole(value, least):
            allowed = f"a whole number from {least}"
            found.append(message(f"{name}={value!r}", allowed, "Correct it."))
    family = FAMILIES.get(model.family)
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
    for key, least in WHOLE.items():
        if key in settings and not _whole(settings[key], least):
            yield message(f"{key} {settings[key]!r}", _allowed(key), "Correct it.")
    for key, (_, fits) in RANGES.items():
        if key in settings and not (_number(settings[key]) and fits(settings[key])):
            yield message(f"{key} {settings[key]!r}", _allowed(key), "Correct it.")


def _data_problems(model: "Model", settings: Mapping) -> Iterator[str]:
    parts = settings.get("data", ())
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
        yield message(
            "data that is no list of mappings", "entries with dataset, format", "Mend it."
        )
        return
    if not parts and "data" in settings:
        yield message("empty data", "at least one entry with dataset and format", "Add one.")
    family = FAMILIES.get(model.family)
    formats = family.formats if family else tuple(FORMATS)
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
    for key, having in (("prompt", tuple(SAMPLE_PROMPTS)), ("window", ("text-windows",))):
        if key in part and form not in having:
            yield message(f"a {key} with {form}", f"with {', '.join(having)} alone", "Remove it.")
    if form in ALSO and ALSO[form] not in part:
        yield message(f"no {ALSO[form]} with {form}", f"a {ALSO[form]} there", "Add it.")
    for key, least in (("samples", 1), ("held_out", 0), ("window", 2)):
        if key in part and not _whole(part[key], least):
            allowed = f"a whole number from {least}"
            yield message(f"{key} {part[key]!r}", allowed, "Correct it.")
    if not isinstance(dataset, Mapping) or any(key not in dataset for key in PLACE):
        yield message(f"dataset {dataset!r}", f"a mapping with {', '.join(PLACE)}", "Correct it.")
        return
    for key in dataset:
        if key not in (*PLACE, "limit", *LOCATED):
            yield unknown("key of a data set", key, (*PLACE, "limit", *LOCATED))
    if "limit" in dataset and not _whole(dataset["limit"], 1):
        yield message(f"limit {dataset['limit']!r}", "a whole number from 1", "Correct it.")
    if VIEWS.get(form, dataset["view"]) != dataset["view"]:
        seen = f"{form} with the view '{dataset['view']}'"
        yield message(seen, VIEWS[form], "Choose another view of the data set.")


def _whole(value: object, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


def _number(value: object) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)
