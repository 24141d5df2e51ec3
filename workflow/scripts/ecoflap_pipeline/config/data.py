"""Checks what a configuration says about data sets. Needs no torch."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from ecoflap.errors import message
from ecoflap.plugins import DATASETS, LAYOUTS, unknown
from ecoflap_pipeline.config.leaks import leaks


def data_problems(config: Mapping) -> Iterator[str]:
    """Yields what is wrong with data sets, and with the calibration sets and tasks on them.

    Args:
        config: The merged configuration, defaults filled in.
    """
    yield from _folder_problems(config)
    for name, entry in config["datasets"].items():
        yield from _source_problems(f"datasets.{name}", config, name, entry)
    for place, samples in _sample_entries(config):
        yield from _dataset_problems(place, config, samples["dataset"])
        yield from leaks(place, samples["dataset"], config)
    for name, calibration in config["calibrations"].items():
        for place, part in _parts(name, calibration):
            # The held-out ones are drawn for allocation: auto and search alone.
            yield from limit_problems(place, part, held_out=0)
    for name, task in config["tasks"].items():
        if "dataset" in task:
            yield from _dataset_problems(f"tasks.{name}", config, task["dataset"])


def name_problems(config: Mapping) -> Iterator[str]:
    """Yields the data sets that have the name of a built-in one, of which the rest speaks."""
    for name in filter(config["datasets"].__contains__, DATASETS):
        place = f"datasets.{name}: the name of a built-in data set"
        yield message(place, "another name", "Rename it.")


def most_examples(samples: Mapping) -> int | None:
    """Returns how many samples can be drawn at most; None if that is not known."""
    if samples["format"] == "text-windows":  # of which a text has several
        return None
    dataset = samples["dataset"]
    return dataset.get("limit", _size(dataset))


def _size(dataset: Mapping) -> int | None:
    """Returns how many examples a split has at most; None where only its files tell."""
    if dataset["name"] not in DATASETS:
        return None
    return getattr(DATASETS.get(dataset["name"]), "SIZES", {}).get(dataset["split"])


def limit_problems(place: str, samples: Mapping, held_out: int) -> Iterator[str]:
    """Yields what is wrong with samples of which there cannot be enough.

    Args:
        place: Where they stand, for messages.
        samples: An entry of config/calibrations.yaml, or of the data of config/finetuning.yaml.
        held_out: How many further ones are drawn.
    """
    most, wanted = most_examples(samples), samples.get("samples", 1)
    if most is None or wanted + held_out <= most:
        return
    cure = "raise limit of" if "limit" in samples["dataset"] else "choose another split of"
    if "samples" not in samples:
        seen, allowed, lower = f"{held_out} held-out samples", f"at most {most - 1}", "held_out"
    elif held_out:
        seen = f"{wanted} samples and {held_out} held-out ones"
        allowed, lower = f"{most} together", "held_out or samples"
    else:
        seen, allowed, lower = f"{wanted} samples", f"at most {most}", "samples"
    yield message(
        f"{place}: {seen} of at most {most} examples",
        allowed,
        f"Lower {lower}, or {cure} the data set.",
    )


def _sample_entries(config: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Yields what is drawn to calibrate or to fine-tune, with its place for messages."""
    for name, calibration in config["calibrations"].items():
        yield from _parts(name, calibration)
    for name, entry in config["finetuning"].items():
        for number, samples in enumerate(entry["data"]):
            yield f"finetuning.{name}.data.{number}", samples


def _parts(name: str, calibration: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Yields the parts of a calibration set, each with its place for messages."""
    place = f"calibrations.{name}"
    if "parts" not in calibration:
        yield place, calibration
    for number, part in enumerate(calibration.get("parts", ())):
        yield f"{place}.parts.{number}", part


def _folder_problems(config: Mapping) -> Iterator[str]:
    for name, folder in config["data_folders"].items():
        if name not in DATASETS and name not in config["datasets"]:
            known = [*DATASETS, *config["datasets"]]
            yield "data_folders: " + unknown("data set", name, known)
        elif name in DATASETS and not _takes(DATASETS.get(name), "folder"):
            yield message(
                f"data_folders: '{name}' is not read from a folder",
                "data sets that come from the hub",
                "Remove the entry.",
            )
        elif not Path(folder).is_dir():
            yield message(
                f"data_folders.{name}: no folder '{folder}'", "a folder that exists", "Correct it."
            )


def _takes(module: ModuleType, setting: str) -> bool:
    return setting in inspect.signature(module.load).parameters


def _source_problems(place: str, config: Mapping, name: str, entry: Mapping) -> Iterator[str]:
    on_hub = entry["layout"] == "hub"
    if "folder" not in entry and name not in config["data_folders"] and "hub" not in entry:
        allowed = "a folder, or hub with revision" if on_hub else "a folder"
        yield message(f"{place}: no place", allowed, "Add where the files lie.")
    form = LAYOUTS.get(entry["layout"]).FORM
    for split, files in entry["splits"].items():
        yield from _key_problems(f"{place}.splits.{split}", files, form.required, form.optional)
    yield from _key_problems(f"{place}.columns", entry.get("columns", {}), (), form.columns)


def _key_problems(
    place: str, entry: Mapping, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[str]:
    for key in required:
        if key not in entry:
            yield message(f"{place}: no '{key}'", ", ".join(required + optional), "Add the key.")
    for key in entry:
        if key not in required + optional:
            yield f"{place}: " + unknown("key", key, required + optional)


def _dataset_problems(place: str, config: Mapping, dataset: Mapping) -> Iterator[str]:
    name, entry = dataset["name"], config["datasets"].get(dataset["name"])
    if name not in DATASETS and entry is None:
        yield f"{place}: " + unknown("data set", name, [*DATASETS, *config["datasets"]])
        return
    module = LAYOUTS.get(entry["layout"]) if entry else DATASETS.get(name)
    splits = entry["splits"] if entry else module.SPLITS
    for key, known in (("split", splits), ("view", module.VIEWS)):
        if dataset[key] not in known:
            yield f"{place}: " + unknown(f"{key} of {name}", dataset[key], known)
    if "separator" in dataset and not _takes(module, "separator"):
        able = [name for name in DATASETS if _takes(DATASETS.get(name), "separator")]
        yield message(
            f"{place}: a separator with {name}", f"separator with {', '.join(able)}", "Remove it."
        )
    most, limit = _size(dataset), dataset.get("limit")
    if most is not None and limit is not None and limit > most:
        yield message(
            f"{place}: limit {limit} of {name}, split {dataset['split']}",
            f"at most {most}",
            "Lower the limit, or choose a larger split.",
        )
