"""Questions about pictures in the official JSON layout of VQAv2 and OK-VQA."""

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
from ecoflap.errors import DataError

VIEWS = ("vqa",)
FORM = Form(required=("questions", "annotations", "images"), examples=("questions",))


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Joins a questions file with its annotations.

    Args:
        source: ``folder``, and ``files``: ``questions``, ``annotations`` and ``images``, the
            pattern of picture names with ``{image_id}``.
        split: Begins the ids.
        view: ``vqa``.

    Returns:
        Examples with ``id``, ``image``, ``question``, ``answers`` (of ten annotators) and
        ``kind`` (the official answer type).

    Raises:
        DataError: for missing files and keys, and a question without answers or
            with two annotations.
    """
    asked, said = path_of(source, "questions"), path_of(source, "annotations")
    entries = take(read_json(said, dict), "annotations", said, list)
    annotations = {take_id(entry, "question_id", said): entry for entry in entries}
    if len(annotations) < len(entries):
        raise DataError(
            f"{said} has {len(entries)} annotations of {len(annotations)} questions",
            allowed="one annotation for each question",
            fix="Download the file again.",
        )
    examples = []
    for entry in take(read_json(asked, dict), "questions", asked, list):
        number = take_id(entry, "question_id", asked)
        if number not in annotations:
            raise DataError(
                f"question {number} of {asked} has no answers in {said}",
                allowed="an annotation for each question",
                fix="Name the annotations of the same split.",
            )
        annotation = annotations[number]
        answers = take(annotation, "answers", said, list)
        examples.append(
            {
                "id": f"{split}/{number}",
                "image": picture_of(source, take_id(entry, "image_id", asked)),
                "question": take_text(entry, "question", asked),
                "answers": [take_text(answer, "answer", said) for answer in answers],
                "kind": optional_text(annotation, "answer_type", said),
            }
        )
    return examples
