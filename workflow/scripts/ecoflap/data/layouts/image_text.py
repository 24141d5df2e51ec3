"""Pictures with captions: a folder of pairs, or a list of files and captions.

This is how CC3M arrives: img2dataset writes 000000001.jpg beside 000000001.txt, LAVIS a list.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ecoflap.data.annotations import (
    Form,
    images_of,
    path_of,
    read_json,
    read_json_lines,
    read_text,
    take_name,
    take_text,
)
from ecoflap.data.folders import beneath, is_picture, name_of, walk
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

VIEWS = ("captions",)
FORM = Form(
    optional=("captions", "images"), examples=("captions", "images"), columns=("image", "caption")
)


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Lists the pictures that have a caption.

    Args:
        source: ``folder``, and ``files``: ``images`` (folder of the pictures, itself by default)
            and optionally ``captions``, a list in JSON, JSON lines (.jsonl) or CSV whose entries
            have ``image`` and ``caption``, or other names that ``columns`` maps to these two.
            Without a list, each picture's caption lies beside it in a .txt file.
        split: Begins the ids.
        view: ``captions``.

    Returns:
        Examples with ``id``, ``image`` and ``captions`` (all that the list has for a picture).
    """
    images = images_of(source)
    captions: dict[str, tuple[str, list[str]]] = {}  # ./a.png is a.png
    for name, path, caption in _listed(source, images) if _is_listed(source) else _beside(images):
        captions.setdefault(os.path.normpath(path), (name, []))[1].append(caption)
    return [
        {"id": f"{split}/{name}", "image": Picture(name, Path(path)), "captions": found}
        for path, (name, found) in captions.items()
    ]


def left_out(source: Mapping, *, split: str, view: str) -> Counter[str]:
    """Counts what lies in the folder and is no example, by the reason; nothing with a list."""
    found: Counter[str] = Counter()
    if not _is_listed(source):
        _pairs(images_of(source), found)
    return found


def _is_listed(source: Mapping) -> bool:
    return "captions" in source.get("files", {})


def _beside(images: Path) -> Iterator[tuple[str, Path, str]]:
    for picture, text in _pairs(images, Counter()):
        yield name_of(picture, images), picture, read_text(text).strip()


def _pairs(images: Path, left: Counter[str]) -> list[tuple[Path, Path]]:
    """Returns each picture with the file of its caption, and counts what has no partner."""
    files = sorted(walk(images, left))
    texts = {path for path in files if path.suffix == ".txt"}
    pictures = [path for path in files if path not in texts and is_picture(path, left)]
    pairs = [(path, path.with_suffix(".txt")) for path in pictures]
    found = [(picture, text) for picture, text in pairs if text in texts]
    alone = len(texts - {text for _, text in found})
    left.update({"pictures without a .txt": len(pairs) - len(found), ".txt without picture": alone})
    return found


def _listed(source: Mapping, images: Path) -> Iterator[tuple[str, Path, str]]:
    path, columns = path_of(source, "captions"), source.get("columns", {})
    for entry in _entries(path):
        name = take_name(entry, columns.get("image", "image"), path)
        caption = take_text(entry, columns.get("caption", "caption"), path)
        yield name, beneath(images, name), caption


def _entries(path: Path) -> list[Any]:
    kind = path.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv"):
        raise DataError(
            f"the list {path} has the suffix '{path.suffix}'",
            allowed=".json, .jsonl, .csv",
            fix="Convert it, or rename it to what it is.",
        )
    if kind == ".jsonl":
        return read_json_lines(path)
    return _rows(path) if kind == ".csv" else read_json(path, list)


def _rows(path: Path) -> list[dict]:
    """Reads a CSV; refused is what would be read as another text than was meant."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows, names = list(reader), reader.fieldnames or []
    except csv.Error as error:
        raise _no_csv(path, f"after line {reader.line_num}: {error}") from error
    if len(set(names)) < len(names):
        raise _no_csv(path, f"two columns of one name among {', '.join(names)}")
    for number, row in enumerate(rows, 1):
        if None in row:
            raise _no_csv(path, f"row {number} has more fields than there are columns")
    return rows


def _no_csv(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is no CSV ({why})",
        allowed=f"fields of at most {csv.field_size_limit()} characters, in double quotes where "
        "they have commas or line breaks",
        fix="Correct the file, or write JSON lines.",
    )
