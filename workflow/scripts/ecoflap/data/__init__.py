"""Data sets as lists of examples. Needs no torch.

A module of `registry.DATASETS` is one data set, with SPLITS, VIEWS and ``load(split, view)``, and
where it is known with SIZES (the examples of a split at most), so that a config is checked by it. A
module of `registry.LAYOUTS` reads all data sets of one form, with VIEWS and ``load(source, split,
view)``, with ``left_out`` if it passes over some of what lies in its place, and with ``files_of``
if its examples do not name their files. Its pictures are `pictures.Picture`, opened when they are
used.
"""

import random
from collections.abc import Mapping

from ecoflap.errors import DataError
from ecoflap.plugins import DATASETS, LAYOUTS
from ecoflap.seeds import seed_from

WHAT = ("name", "split", "view", "limit")  # of a dataset entry; the rest says where it is


def load(dataset: Mapping) -> list[dict]:
    """Loads the examples that a config entry describes.

    Args:
        dataset: ``name``, ``split``, ``view``, and optionally ``limit`` (number of examples).
            Data sets that are not built in also have what `points.located` adds: ``layout``,
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
        passed = "".join(f"; {count} {what}" for what, count in left_out(dataset).items())
        raise DataError(
            f"no examples of {place}{passed}",
            allowed="at least one",
            fix="Check that folder, split and files are the right ones.",
        )
    if len(examples) < (limit or 1):
        raise DataError(
            f"{limit} examples of {place} asked for, {len(examples)} found",
            allowed=f"at most {len(examples)}",
            fix="Lower the limit or use a larger split.",
        )
    return examples


def left_out(dataset: Mapping) -> dict[str, int]:
    """Counts what lies in the place of a data set and is none of its examples, by the reason.

    Args:
        dataset: As for `load`.
    """
    layout = LAYOUTS.get(dataset["layout"]) if "layout" in dataset else None
    if layout is None or not hasattr(layout, "left_out"):
        return {}
    where, names = _place(dataset)
    return {what: count for what, count in layout.left_out(where, **names).items() if count}


def _read_built_in(dataset: Mapping) -> list[dict]:
    settings = {key: value for key, value in dataset.items() if key != "name"}
    return DATASETS.get(dataset["name"]).load(**settings)


def _read(dataset: Mapping) -> list[dict]:
    """Reads a data set of a known layout; a limit takes a random sample, always the same."""
    where, names = _place(dataset)
    examples = LAYOUTS.get(dataset["layout"]).load(where, **names)
    limit = dataset.get("limit")
    if limit is None or limit > len(examples):
        return examples
    return random.Random(seed_from("limit", dataset["name"], *names.values())).sample(
        examples, limit
    )


def _place(dataset: Mapping) -> tuple[dict, dict]:
    """Returns what of an entry says where a data set is, and what of it is read."""
    where = {key: value for key, value in dataset.items() if key not in (*WHAT, "layout")}
    return where, {key: dataset[key] for key in ("split", "view")}
