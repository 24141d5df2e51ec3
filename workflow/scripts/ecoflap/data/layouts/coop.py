"""Classified pictures in the layout of CoOp (Zhou et al. 2022), in which CLIP is evaluated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecoflap.data.annotations import Form, images_of, missing, named, path_of, read_json
from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

VIEWS = ("classes",)
FORM = Form(
    required=("split_file", "part"), optional=("images",), examples=("split_file",), parts="part"
)


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a split of a ``split_zhou_*.json`` file.

    Args:
        source: ``folder``, and ``files``: ``split_file`` (train, val and test, each a list of
            path, number and name of the class), ``part`` (train, val or test) and ``images``
            (folder of the pictures).
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes`` (all of them, by number).

    Raises:
        DataError: for missing files, a part that there is not, a row of another form, and a
            number with two classes.
    """
    path, part, images = path_of(source, "split_file"), named(source, "part"), images_of(source)
    rows = {name: _rows(name, value, path) for name, value in read_json(path, dict).items()}
    if part not in rows:
        raise missing("part", part, str(path), rows)
    names: dict[int, str] = {}
    for _, number, name in (row for found in rows.values() for row in found):
        shown = name.replace("_", " ")
        if names.setdefault(number, shown) != shown:
            raise DataError(
                f"{path} calls the class {number} '{names[number]}' and '{shown}'",
                allowed="one name for each number",
                fix="Download the file again.",
            )
    classes = [names[number] for number in sorted(names)]
    return [
        {
            "id": f"{split}/{name}",
            "image": Picture(name, beneath(images, name)),
            "label": names[number],
            "classes": classes,
        }
        for name, number, _ in rows[part]
    ]


def _rows(part: str, rows: Any, path: Path) -> list[tuple[str, int, str]]:
    """Returns the rows of a part, each with the path of a picture, a number and a class."""
    for row in rows if isinstance(rows, list) else [rows]:
        kinds = [type(value) for value in row] if isinstance(row, list) else []
        if kinds != [str, int, str]:
            raise DataError(
                f"'{part}' of {path} has the row {row!r}",
                allowed="rows of path, number and name of the class",
                fix="Download the file again.",
            )
    return rows
