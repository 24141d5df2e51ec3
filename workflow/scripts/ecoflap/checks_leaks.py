"""Refuses samples that are drawn from what a task evaluates. Needs no torch."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ecoflap.errors import message
from ecoflap.registry import DATASETS, LAYOUTS
from ecoflap.targets import located


class Origin(NamedTuple):
    """Where examples come from, whatever the data set is called.

    Attributes:
        place: A data set of the hub, or the real path of a file or folder.
        config: Which configuration of a data set of the hub.
        files: Which of its files.
        parts: Names of splits inside the place.

    What is None may be any.
    """

    place: str
    config: str | None
    files: str | None
    parts: frozenset[str] | None

    def overlaps(self, other: "Origin") -> bool:
        """Tells whether an example can come from both."""
        pairs = ((self.config, other.config), (self.files, other.files))
        parts = self.parts is None or other.parts is None or bool(self.parts & other.parts)
        return self.place == other.place and parts and all(None in p or p[0] == p[1] for p in pairs)


def leaks(place: str, dataset: Mapping, config: Mapping) -> Iterator[str]:
    """Yields what is wrong with samples that are drawn from what tasks evaluate.

    Args:
        place: What draws, for messages: a calibration set or an entry of fine-tuning.
        dataset: Its ``dataset``.
        config: The merged configuration.
    """
    drawn = origin(config, dataset)
    tasks = [
        f"'{name}'"
        for name, task in config["tasks"].items()
        if "dataset" in task and drawn.overlaps(origin(config, task["dataset"]))
    ]
    if tasks:
        plural, verb = ("", "evaluates") if len(tasks) == 1 else ("s", "evaluate")
        yield message(
            f"{place} draws from {dataset['name']}/{dataset['split']}, which "
            f"task{plural} {', '.join(tasks)} {verb}",
            "a split that no task evaluates",
            "Use a training or calibration split.",
        )


def origin(config: Mapping, dataset: Mapping) -> Origin:
    """Tells where the examples of a data set come from.

    Args:
        config: The merged configuration.
        dataset: ``name`` and ``split``.
    """
    where = located(config, dataset)
    name, split, folder = dataset["name"], dataset["split"], where.get("folder")
    files = where.get("files", {})
    if "layout" not in where:
        module = DATASETS.get(name) if name in DATASETS else None
        hub = None if folder else getattr(module, "HUB_ID", None)
        place = os.path.realpath(folder) if folder else hub.lower() if hub else name
        return Origin(place, module.HUB_CONFIG if hub else None, None, frozenset([split]))
    if where["layout"] == "hub":
        place = os.path.realpath(folder) if folder else where.get("hub", name).lower()
        parts = re.sub(r"\[.*?\]", "", files.get("split", split))  # test[:50%] is of test
        return Origin(place, files.get("config"), files.get("data_files"), _names(parts, "+"))
    form = LAYOUTS.get(where["layout"]).FORM if where["layout"] in LAYOUTS else None
    if form is None:
        return Origin(name, None, None, frozenset([split]))  # told with the data set itself
    file = next((files[key] for key in form.examples if key in files), "")
    parts = _names(files[form.parts], ",") if form.parts in files else None
    return Origin(os.path.realpath(os.path.join(folder or name, file)), None, None, parts)


def _names(text: str, separator: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(separator))
