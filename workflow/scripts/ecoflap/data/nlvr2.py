"""NLVR2: a sentence that is true or false of two pictures, in the JSON lines of its repository."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json_lines, take
from ecoflap.data.pictures import Picture

VIEWS = ("pairs",)
LABELS = ("True", "False")


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a file of sentences.

    Args:
        source: ``folder``, and ``files``: ``sentences`` (JSON lines with identifier, sentence,
            label and, in the training split, directory) and ``images`` (folder of the pictures).
        split: Begins the ids.
        view: ``pairs``.

    Returns:
        Examples with ``id``, ``images`` (left and right), ``text`` and ``label`` (True, False).
    """
    path = path_of(source, "sentences")
    images = folder_of(source) / source["files"].get("images", "")
    examples = []
    for entry in read_json_lines(path):
        identifier = take(entry, "identifier", path)
        # dev-850-0-1 is sentence 1 about the pictures dev-850-0-img0.png and dev-850-0-img1.png.
        pair = identifier.rpartition("-")[0]
        place = images / str(entry.get("directory", ""))
        names = [f"{pair}-img{side}.png" for side in (0, 1)]
        examples.append(
            {
                "id": f"{split}/{identifier}",
                "images": [Picture(name, place / name) for name in names],
                "text": take(entry, "sentence", path),
                "label": str(take(entry, "label", path)),
            }
        )
    return examples
