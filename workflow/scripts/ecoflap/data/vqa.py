"""Visual question answering in the official JSON layout of VQAv2 and OK-VQA."""

import json
from collections.abc import Mapping
from pathlib import Path

from ecoflap.data.pictures import Picture

VIEWS = ("vqa",)
FILES = ("questions", "annotations", "images")


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Joins a questions file with its annotations.

    Args:
        source: ``folder``, and ``files``: ``questions``, ``annotations`` and ``images``, the
            pattern of picture names with ``{image_id}``.
        split: Names the ids.
        view: ``vqa``.

    Returns:
        Examples with ``id``, ``image``, ``question``, ``answers`` (of ten annotators) and
        ``kind`` (the official answer type).
    """
    folder, files = Path(source["folder"]), source["files"]
    questions = json.loads((folder / files["questions"]).read_text())["questions"]
    annotations = json.loads((folder / files["annotations"]).read_text())["annotations"]
    answers = {entry["question_id"]: entry for entry in annotations}
    examples = []
    for entry in questions:
        annotation = answers[entry["question_id"]]
        name = files["images"].format(image_id=entry["image_id"])
        examples.append(
            {
                "id": f"{split}/{entry['question_id']}",
                "image": Picture(name, folder / name),
                "question": entry["question"],
                "answers": [answer["answer"] for answer in annotation["answers"]],
                "kind": annotation.get("answer_type", ""),
            }
        )
    return examples
