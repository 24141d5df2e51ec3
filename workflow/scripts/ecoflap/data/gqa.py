"""Questions about pictures in the JSON layout of GQA."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json, take
from ecoflap.data.pictures import Picture

VIEWS = ("vqa",)


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
    folder, path = folder_of(source), path_of(source, "questions")
    examples = []
    for number, entry in read_json(path).items():
        name = source["files"]["images"].format(image_id=take(entry, "imageId", path))
        examples.append(
            {
                "id": f"{split}/{number}",
                "image": Picture(name, folder / name),
                "question": take(entry, "question", path),
                "answers": [take(entry, "answer", path)],
                "kind": entry.get("types", {}).get("structural", ""),
            }
        )
    return examples
