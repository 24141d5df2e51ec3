"""Compares the files of data sets: a sample must not be drawn from what is evaluated."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ecoflap import data
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError
from ecoflap.plugins import DATASETS, LAYOUTS

log = logging.getLogger(__name__)


def compare(drawn: Mapping, evaluated: Mapping[str, Mapping]) -> dict:
    """Refuses samples of files that tasks show to a model, wherever their lists name them.

    Args:
        drawn: What samples are drawn from, as for `ecoflap.data.load`.
        evaluated: The same of each task, by its name.

    Returns:
        ``files`` (how many are drawn from), ``compared`` (the tasks), ``not_compared`` (those
        whose data are not here, and why).

    Raises:
        DataError: naming each task and the first file that both have.
    """
    own = files_of(drawn)
    compared, unread, problems = [], {}, []
    for task, dataset in evaluated.items():
        try:
            shared = own & files_of(dataset)
        except DataError as error:
            unread[task] = str(error)
            log.warning("not compared with the task %s: %s", task, error)
            continue
        compared.append(task)
        if shared:
            problems.append(f"{len(shared)} of task '{task}', such as {min(shared)}")
    if problems:
        raise DataError(
            f"samples are drawn from '{drawn['name']}', split {drawn['split']}, which shares "
            f"files with what the same models are evaluated on: {'; '.join(problems)}",
            allowed="files that no task of these models shows",
            fix="Take them out of the list or folder, or choose another split.",
        )
    return {"files": len(own), "compared": compared, "not_compared": unread}


def files_of(dataset: Mapping) -> set[str]:
    """Returns the real paths of what the examples of a data set lie in: pictures, or tables.

    Args:
        dataset: As for `ecoflap.data.load`, of a layout or a built-in one with files in a folder;
            all of it counts, whatever its ``limit``.

    Raises:
        DataError: if it cannot be read.
    """
    if "layout" not in dataset:
        file = DATASETS.get(dataset["name"]).FILES[dataset["split"]]
        return {os.path.realpath(os.path.join(dataset["folder"], file))}
    whole = {key: value for key, value in dataset.items() if key != "limit"}
    layout = LAYOUTS.get(dataset["layout"])
    if hasattr(layout, "files_of"):
        found = layout.files_of(whole, split=dataset["split"], view=dataset["view"])
    else:
        found = {
            image.source
            for example in data.load(whole)
            for image in (example.get("image"), *example.get("images", []))
            if isinstance(image, Picture)
        }
    return {os.path.realpath(path) for path in found if isinstance(path, str | Path)}
