"""Questions about pictures in the official JSON layout of VQAv2 and OK-VQA."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json, take
from ecoflap.data.pictures import Picture
from ecoflap.errors import DataError, message

VIEWS = ("vqa",)


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
        DataError: for missing files and keys, and a question without answers.
    """
    folder = folder_of(source)
    asked, said = path_of(source, "questions"), path_of(source, "annotations")
    annotations = {
        take(entry, "question_id", said): entry
        for entry in take(read_json(said), "annotations", said)
    }
    examples = []
    for entry in take(read_json(asked), "questions", asked):
        number = take(entry, "question_id", asked)
        if number not in annotations:
            raise DataError(
                message(
                    f"question {number} of {asked} has no answers in {said}",
                    "an annotation for each question",
                    "Name the annotations of the same split.",
                )
            )
        annotation = annotations[number]
        name = source["files"]["images"].format(image_id=take(entry, "image_id", asked))
        answers = [take(answer, "answer", said) for answer in take(annotation, "answers", said)]
        examples.append(
            {
                "id": f"{split}/{number}",
                "image": Picture(name, folder / name),
                "question": take(entry, "question", asked),
                "answers": answers,
                "kind": annotation.get("answer_type", ""),
            }
        )
    return examples
