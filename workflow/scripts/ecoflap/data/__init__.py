"""Data sets as lists of examples. Needs no torch.

A module of `registry.DATASETS` is one data set, with SPLITS, VIEWS and ``load(split, view)``, and
where it is known with SIZES (the examples of a split at most), so that a config is checked by it. A
module of `registry.LAYOUTS` reads all data sets of one form, with VIEWS and ``load(source, split,
view)``. Pictures of the latter are `pictures.Picture`, opened when they are used.
"""

import random
from collections.abc import Mapping

from ecoflap.errors import DataError, message
from ecoflap.registry import DATASETS, LAYOUTS
from ecoflap.runtime import seed_from

WHAT = ("name", "split", "view", "limit")  # of a dataset entry; the rest says where it is


def load(dataset: Mapping) -> list[dict]:
    """Loads the examples that a config entry describes.

    Args:
        dataset: ``name``, ``split``, ``view``, and optionally ``limit`` (number of examples).
            Data sets that are not built in also have what `targets.located` adds: ``layout``,
            ``folder`` or ``hub`` with ``revision``, ``files`` and ``columns``.

    Returns:
        Examples, each with a unique ``id`` and what its view says.

    Raises:
        DataError: if the data set cannot be read or has fewer examples than asked for.
    """
    name, split, view, limit = (dataset.get(key) for key in WHAT)
    place = f"'{name}' (split {split}, view {view})"
    try:
        examples = _read(dataset) if "layout" in dataset else _read_built_in(dataset)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"data set {place}: {error}") from error
    if not examples:
        raise DataError(
            message(
                f"no examples of {place}",
                "at least one",
                "Check that folder, split and files are the right ones.",
            )
        )
    if len(examples) < (limit or 1):
        raise DataError(
            message(
                f"{limit} examples of {place} asked for, {len(examples)} found",
                f"at most {len(examples)}",
                "Lower the limit or use a larger split.",
            )
        )
    return examples


def _read_built_in(dataset: Mapping) -> list[dict]:
    settings = {key: value for key, value in dataset.items() if key != "name"}
    return DATASETS.get(dataset["name"]).load(**settings)


def _read(dataset: Mapping) -> list[dict]:
    """Reads a data set of a known layout; a limit takes a random sample, always the same."""
    where = {key: value for key, value in dataset.items() if key not in (*WHAT, "layout")}
    names = {key: dataset[key] for key in ("split", "view")}
    examples = LAYOUTS.get(dataset["layout"]).load(where, **names)
    limit = dataset.get("limit")
    if limit is None or limit > len(examples):
        return examples
    return random.Random(seed_from("limit", dataset["name"], *names.values())).sample(
        examples, limit
    )
