"""Captions in COCO's JSON layout, which NoCaps shares."""

from collections import defaultdict
from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json, take
from ecoflap.data.pictures import Picture

VIEWS = ("captions",)


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
    path = path_of(source, "captions")
    content = read_json(path)
    images = folder_of(source) / source["files"].get("images", "")
    captions = defaultdict(list)
    for entry in take(content, "annotations", path):
        captions[take(entry, "image_id", path)].append(take(entry, "caption", path).strip())
    examples = []
    for entry in take(content, "images", path):
        number, name = take(entry, "id", path), take(entry, "file_name", path)
        examples.append(
            {
                "id": f"{split}/{number}",
                "image": Picture(name, images / name),
                "captions": captions[number],
                "kind": entry.get("domain", ""),
            }
        )
    return examples
