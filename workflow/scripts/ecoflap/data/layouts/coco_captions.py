"""Captions in COCO's JSON layout, which NoCaps shares."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from ecoflap.data.annotations import (
    Form,
    images_of,
    optional_text,
    path_of,
    read_json,
    take,
    take_id,
    take_name,
    take_text,
)
from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture

VIEWS = ("captions",)
FORM = Form(required=("captions",), optional=("images",), examples=("captions",))


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Gathers the captions of each picture.

    Args:
        source: ``folder``, and ``files``: ``captions`` (the JSON file) and ``images`` (folder of
            the pictures).
        split: Begins the ids.
        view: ``captions``.

    Returns:
        Examples with ``id``, ``image``, ``captions``, and with NoCaps ``kind``, the domain
        (in-domain, near-domain, out-domain).
    """
    images = images_of(source)
    path, content, captions = _read(source)
    examples = []
    for entry in take(content, "images", path, list):
        number, name = take_id(entry, "id", path), take_name(entry, "file_name", path)
        examples.append(
            {
                "id": f"{split}/{number}",
                "image": Picture(name, beneath(images, name)),
                "captions": captions[number],
                "kind": optional_text(entry, "domain", path),
            }
        )
    return examples


def left_out(source: Mapping, *, split: str, view: str) -> Counter[str]:
    """Counts the captions whose picture the file does not list."""
    path, content, captions = _read(source)
    for entry in take(content, "images", path, list):
        captions.pop(take_id(entry, "id", path), None)
    return Counter({"captions of pictures that are not listed": sum(map(len, captions.values()))})


def _read(source: Mapping) -> tuple[Path, dict, dict[str | int, list[str]]]:
    """Returns the file, its content, and the captions by the number of their picture."""
    path = path_of(source, "captions")
    content = read_json(path, dict)
    captions = defaultdict(list)
    for entry in take(content, "annotations", path, list):
        captions[take_id(entry, "image_id", path)].append(take_text(entry, "caption", path))
    return path, content, captions
