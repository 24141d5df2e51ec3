"""NLVR2: a sentence that is true or false of two pictures, in the JSON lines of its repository."""

from collections.abc import Mapping

from ecoflap.data.annotations import (
    Form,
    images_of,
    optional_text,
    path_of,
    read_json_lines,
    take,
    take_name,
    take_text,
)
from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

VIEWS = ("pairs",)
FORM = Form(required=("sentences",), optional=("images",), examples=("sentences",))
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

    Raises:
        DataError: for missing files and keys, and other labels.
    """
    path, images = path_of(source, "sentences"), images_of(source)
    examples = []
    for entry in read_json_lines(path):
        identifier = take_name(entry, "identifier", path)
        # dev-850-0-1 is sentence 1 about the pictures dev-850-0-img0.png and dev-850-0-img1.png.
        pair = identifier.rpartition("-")[0]
        place = beneath(images, optional_text(entry, "directory", path))
        names = [f"{pair}-img{side}.png" for side in (0, 1)]
        examples.append(
            {
                "id": f"{split}/{identifier}",
                "images": [Picture(name, beneath(place, name)) for name in names],
                "text": take_text(entry, "sentence", path),
                "label": judgement(take(entry, "label", path), f"{identifier} of {path}"),
            }
        )
    return examples


def judgement(label: object, place: str) -> str:
    """Returns a label as ``True`` or ``False``, however it is written.

    Args:
        label: A text or a boolean.
        place: Where it stands, for the message.

    Raises:
        DataError: if it is neither.
    """
    found = str(label).capitalize()
    if found not in LABELS:
        raise DataError(
            f"{place} has the label {label!r}",
            allowed=", ".join(LABELS),
            fix="Correct the label.",
        )
    return found
