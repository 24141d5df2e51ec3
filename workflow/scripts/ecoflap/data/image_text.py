"""Pictures with captions: a folder of pairs, or a list of files and captions.

This is how CC3M arrives: img2dataset writes 000000001.jpg beside 000000001.txt, LAVIS a list.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecoflap.data.class_folders import SUFFIXES
from ecoflap.data.files import (
    Form,
    images_of,
    path_of,
    read_json,
    read_json_lines,
    read_text,
    take_text,
)
from ecoflap.data.pictures import Picture

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
    captions: dict[str, list[str]] = {}
    listed = "captions" in source.get("files", {})
    for name, caption in _listed(source) if listed else _beside(images):
        captions.setdefault(name, []).append(caption)
    return [
        {"id": f"{split}/{name}", "image": Picture(name, images / name), "captions": found}
        for name, found in captions.items()
    ]


def _beside(images: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(images.rglob("*")):
        text = path.with_suffix(".txt")
        if path.suffix.lower() in SUFFIXES and text.is_file():
            yield path.relative_to(images).as_posix(), read_text(text).strip()


def _listed(source: Mapping) -> Iterator[tuple[str, str]]:
    path, columns = path_of(source, "captions"), source.get("columns", {})
    for entry in _entries(path):
        name = take_text(entry, columns.get("image", "image"), path)
        yield name, take_text(entry, columns.get("caption", "caption"), path)


def _entries(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return read_json_lines(path)
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    return read_json(path, list)
