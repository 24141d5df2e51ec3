"""The data set easy-VQA: one shape in each picture, 13 answers, from the package `easy-vqa`.

Its 4,000 training pictures are split again: the last tenth is "validation" and never trained on.
"""

import random
from pathlib import Path
from typing import Any

from PIL import Image

from ecoflap.data.picture import Picture

SIZES = {"train": 34_687, "validation": 3_888, "test": 9_673}
SPLITS = tuple(SIZES)
VIEWS = ("vqa",)
VALIDATION_SHARE = 0.1


def load(*, split: str, view: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Load questions in an order shuffled with a fixed seed, so that a limit is a fair sample.

    Args:
        split: One of `SPLITS`.
        view: "vqa".
        limit: How many questions; all of the split when None.

    Returns:
        Examples with "id", "image" (64 x 64 RGB), "question", "answers" (one), "kind"
        ("colour", "shape" or "existence").

    Raises:
        ValueError: Unknown split or view.
        ImportError: The package `easy-vqa` is not installed.
    """
    for what, value, allowed in (("split", split, SPLITS), ("view", view, VIEWS)):
        if value not in allowed:
            raise ValueError(
                f"unknown {what} {value!r} of easy_vqa: choose from {', '.join(allowed)}"
            )
    rows, paths = questions_of(split)
    random.Random(f"easy_vqa/{split}").shuffle(rows)
    images: dict[int, Image.Image] = {}
    examples = []
    for number, question, answer, picture in rows[:limit]:
        if picture not in images:
            images[picture] = Picture(str(picture), paths[picture]).open()
        examples.append(
            {
                "id": f"easy-vqa/{split}/{number}",
                "image": images[picture],
                "question": question,
                "answers": [answer],
                "kind": kind_of(question),
            }
        )
    return examples


def questions_of(split: str) -> tuple[list[tuple[int, str, str, int]], dict[int, Path]]:
    """The questions of a split in the package's order.

    Returns:
        Rows (number in the package, question, answer, picture), and each picture's file.
    """
    try:
        import easy_vqa
    except ImportError as error:
        raise ImportError(
            "the data set easy_vqa needs the package easy-vqa: pip install easy-vqa==1.0"
        ) from error
    if split == "test":
        questions, paths = easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()
        chosen = set(paths)
    else:
        questions, paths = easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()
        pictures = sorted(paths)
        first_validation = round(len(pictures) * (1 - VALIDATION_SHARE))
        chosen = set(
            pictures[first_validation:] if split == "validation" else pictures[:first_validation]
        )
    rows = [
        (number, question.lower(), answer.lower(), picture)
        for number, (question, answer, picture) in enumerate(zip(*questions, strict=True))
        if picture in chosen
    ]
    return rows, {picture: Path(paths[picture]) for picture in chosen}


def kind_of(question: str) -> str:
    """The kind of a question, read from its words."""
    if "color" in question:
        return "colour"
    return "shape" if question.startswith("what") else "existence"
