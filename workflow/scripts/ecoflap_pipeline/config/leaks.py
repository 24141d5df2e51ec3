"""Refuses samples that are drawn from what a task evaluates. Needs no torch."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ecoflap.errors import message
from ecoflap.plugins import DATASETS, LAYOUTS
from ecoflap_pipeline import points, targets


class Origin(NamedTuple):
    """Where examples come from, whatever the data set is called.

    Attributes:
        place: A data set of the hub, or the real path of a file or folder.
        config: Which configuration of a data set of the hub.
        files: Which of its files.
        parts: Names of splits inside the place.
        pictures: The real path of the folder that the pictures lie in.
        whole: Whether all pictures in that folder are examples, with those of folders in it.

    What is None may be any.
    """

    place: str
    config: str | None
    files: str | None
    parts: frozenset[str] | None
    pictures: str | None = None
    whole: bool = False

    def overlaps(self, other: "Origin") -> bool:
        """Tells whether an example can come from both."""
        pairs = ((self.config, other.config), (self.files, other.files))
        parts = self.parts is None or other.parts is None or bool(self.parts & other.parts)
        return self.place == other.place and parts and all(None in p or p[0] == p[1] for p in pairs)

    def holds(self, other: "Origin") -> bool:
        """Tells whether the folder of another lies in one of which all pictures are examples."""
        if not self.whole or self.pictures is None or other.pictures is None:
            return False
        return os.path.commonpath([self.pictures, other.pictures]) == self.pictures


def leaks(place: str, dataset: Mapping, config: Mapping) -> Iterator[str]:
    """Yields what is wrong with samples that are drawn from what tasks evaluate.

    That is told from paths alone; what two lists of files have in common, `data.overlap` tells.

    Args:
        place: What draws, for messages: a calibration set or an entry of fine-tuning.
        dataset: Its ``dataset``.
        config: The merged configuration.
    """
    drawn = origin(config, dataset)
    same, around = [], []
    for name, task in config["tasks"].items():
        if "dataset" in task:
            evaluated = origin(config, task["dataset"])
            if drawn.overlaps(evaluated):
                same.append(f"'{name}'")
            elif drawn.holds(evaluated) or evaluated.holds(drawn):
                around.append(f"'{name}' in {evaluated.pictures}")
    seen = f"{place} draws from {dataset['name']}/{dataset['split']}"
    if same:
        yield message(
            f"{seen}, which {_evaluate(same)}",
            "a split that no task evaluates",
            "Use a training or calibration split.",
        )
    if around:
        yield message(
            f"{seen} in {drawn.pictures}, where pictures lie that {_evaluate(around)}",
            "folders of which none holds the other",
            "Name the folder of each split, or give each a list of its pictures.",
        )


def _evaluate(tasks: list[str]) -> str:
    plural, verb = ("", "evaluates") if len(tasks) == 1 else ("s", "evaluate")
    return f"task{plural} {', '.join(tasks)} {verb}"


def asked(config: Mapping, dataset: Mapping) -> list[str]:
    """Returns the tasks, of data sets with files of their own, of the models that get samples.

    Args:
        config: The merged configuration.
        dataset: ``name``, ``split`` and ``view`` of what the samples are drawn from.
    """
    found = []
    for experiment, entry in config["experiments"].items():
        for model in entry["models"]:
            if _gets(config, experiment, model, dataset):
                found += points.takes(config, experiment, model)
    tasks = {name: config["tasks"][name].get("dataset") for name in dict.fromkeys(found)}
    return [name for name, used in tasks.items() if used and _has_files(config, used["name"])]


def _has_files(config: Mapping, name: str) -> bool:
    """Tells whether a data set is made of files here, or of a hub's table: built-in ones may be."""
    built_in = name in DATASETS and hasattr(DATASETS.get(name), "FILES")
    return name in config["datasets"] or (built_in and name in config["data_folders"])


def _gets(config: Mapping, experiment: str, model: str, dataset: Mapping) -> bool:
    """Tells whether a model of an experiment is calibrated or fine-tuned with a data set."""
    keys = ("name", "split", "view")
    alone = {**config["experiments"][experiment], "models": [model]}
    narrowed = {**config, "experiments": {experiment: alone}}
    drawn = (entry["dataset"] for entry in targets.drawn(narrowed, experiment))
    return any(all(used[key] == dataset[key] for key in keys) for used in drawn)


def origin(config: Mapping, dataset: Mapping) -> Origin:
    """Tells where the examples of a data set come from.

    Args:
        config: The merged configuration.
        dataset: ``name`` and ``split``.
    """
    where = points.located(config, dataset)
    name, split, folder = dataset["name"], dataset["split"], where.get("folder")
    files, real = where.get("files", {}), folder and os.path.realpath(folder)
    if "layout" not in where:
        module = DATASETS.get(name) if name in DATASETS else None
        file = getattr(module, "FILES", {}).get(split)
        if folder and file:
            return Origin(os.path.realpath(os.path.join(folder, file)), None, None, None)
        hub = None if folder else getattr(module, "HUB_ID", None)
        place = real or (hub.lower() if hub else name)
        return Origin(place, None, None, frozenset([split]))  # configs of it share their texts
    if where["layout"] == "hub":
        file = os.path.join(folder or "", files.get("data_files", ""))
        if folder and os.path.isfile(file):
            return Origin(os.path.realpath(file), None, None, None, real)
        place = real or where.get("hub", name).lower()
        parts = _names(re.sub(r"\[.*?\]", "", files.get("split", split)), "+")  # test[:50%]
        if "data_files" in files:  # whose split is "train", whatever they are called
            parts = frozenset(re.findall("[a-z]+", files["data_files"].lower()))
        if "all" in parts:
            parts = None
        return Origin(place, files.get("config"), files.get("data_files"), parts, real)
    form = LAYOUTS.get(where["layout"]).FORM if where["layout"] in LAYOUTS else None
    if form is None:
        return Origin(name, None, None, frozenset([split]))  # told with the data set itself
    key = next((key for key in form.examples if key in files), "images")
    parts = _names(files[form.parts], ",") if form.parts in files else None
    place = os.path.realpath(os.path.join(folder or name, files.get(key, "")))
    named, pattern, _ = files.get("images", "").partition("{image_id")
    named = os.path.dirname(named) if pattern else named
    pictures = os.path.realpath(os.path.join(folder or name, named))
    return Origin(place, None, None, parts, pictures, whole=key == "images")


def _names(text: str, separator: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(separator))
