"""What `finetune` is asked for, filled in and checked, also where no configuration was."""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflap.calibration import FORMATS
from ecoflap.checks_steps import lone_problems
from ecoflap.errors import ConfigError, message
from ecoflap.finetuning.objective import AUTOCAST
from ecoflap.registry import FAMILIES, VIEWS, unknown

if TYPE_CHECKING:
    from ecoflap.models.base import Model

METHODS = ("full", "sparselora")
NEEDED = ("method", "data", "epochs", "learning_rate", "batch_size")
DEFAULTS = MappingProxyType({"warmup": 0, "weight_decay": 0.05, "precision": "bfloat16"})
WHOLE = {"epochs": 1, "warmup": 0, "batch_size": 1, "rank": 1}  # the least that each may be
RANGES = {
    "learning_rate": ("more than 0", lambda value: value > 0),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "distillation": ("more than 0, at most 1", lambda value: 0 < value <= 1),
}
PLACE = ("name", "split", "view")  # what a data set is asked for by


def checked(model: "Model", settings: Mapping, batch_size: int) -> dict:
    """Returns settings with their defaults.

    Args:
        model: What is to be trained.
        settings: Keys of config/finetuning.yaml.
        batch_size: Samples per forward.

    Raises:
        ConfigError: naming all that is wrong.
    """
    filled = {**settings, **{k: v for k, v in DEFAULTS.items() if k not in settings}}
    found = [*_key_problems(filled), *_value_problems(filled), *_data_problems(model, filled)]
    if not _whole(batch_size, 1):
        found.append(message(f"batch_size={batch_size!r}", "a whole number from 1", "Correct it."))
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
            yield message(f"no {key}", ", ".join(known), "Add the key.")
    for key in settings:
        if key not in known:
            yield unknown("key", key, known)
    if "rank" in settings and not low_rank:
        yield message("a rank", "a rank with the method sparselora alone", "Remove it.")


def _value_problems(settings: Mapping) -> Iterator[str]:
    for key, choices in (("method", METHODS), ("precision", tuple(AUTOCAST))):
        if settings.get(key, choices[0]) not in choices:
            yield message(f"{key} {settings[key]!r}", ", ".join(choices), "Choose one.")
    for key, least in WHOLE.items():
        if key in settings and not _whole(settings[key], least):
            yield message(f"{key} {settings[key]!r}", f"a whole number from {least}", "Correct it.")
    for key, (allowed, fits) in RANGES.items():
        if key in settings and not (_number(settings[key]) and fits(settings[key])):
            yield message(f"{key} {settings[key]!r}", f"a number, {allowed}", "Correct it.")


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
        dataset, form = part.get("dataset"), part.get("format")
        if not isinstance(dataset, Mapping) or any(key not in dataset for key in PLACE):
            allowed = f"a mapping with {', '.join(PLACE)}"
            yield message(f"data.{number}: dataset {dataset!r}", allowed, "Correct it.")
        elif VIEWS.get(form, dataset["view"]) != dataset["view"]:
            seen = f"data.{number}: {form} with the view '{dataset['view']}'"
            yield message(seen, VIEWS[form], "Choose another view of the data set.")
        if form not in formats:
            yield f"data.{number}: " + unknown("format of samples for this model", form, formats)
        for key, least in (("samples", 1), ("held_out", 0)):
            if key in part and not _whole(part[key], least):
                allowed = f"a whole number from {least}"
                yield message(f"data.{number}: {key} {part[key]!r}", allowed, "Correct it.")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
