"""Questions about pictures in the JSON layout of GQA."""

from collections.abc import Mapping

from ecoflap.data.annotations import (
    Form,
    optional_text,
    path_of,
    picture_of,
    read_json,
    take,
    take_id,
    take_text,
)

VIEWS = ("vqa",)
FORM = Form(required=("questions", "images"), examples=("questions",))


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a questions file, which holds its answers.

    Args:
        source: ``folder``, and ``files``: ``questions`` (id to question, answer, imageId and
            types) and ``images``, the pattern of picture names with ``{image_id}``.
        split: Begins the ids.
        view: ``vqa``.

    Returns:
        Examples with ``id``, ``image``, ``question``, ``answers`` (one) and ``kind`` (the
        structural type).
    """
    path = path_of(source, "questions")
    return [
        {
            "id": f"{split}/{number}",
            "image": picture_of(source, take_id(entry, "imageId", path)),
            "question": take_text(entry, "question", path),
            "answers": [take_text(entry, "answer", path)],
            "kind": optional_text(take(entry, "types", path, dict), "structural", path),
        }
        for number, entry in read_json(path, dict).items()
    ]
