"""How an example becomes a sample that a model's ``encode`` takes."""

import random
from collections.abc import Callable, Mapping

from ecoflap.data.picture import opened
from ecoflap.errors import DataError
from ecoflap.seeds import seed_from

MOST_WORDS = 50  # of a text that is split into prompt and target, as published for FlanT5


def prepare(example: Mapping, calibration: Mapping, *parts: object) -> dict:
    """Makes the sample of an example that a model's ``encode`` takes.

    Args:
        example: An example of the calibration's data set.
        calibration: ``format``, and ``prompt`` where the format has one.
        *parts: With the example's id they seed what is chosen of it: a caption, where it is cut.

    Raises:
        DataError: if there are no words to learn from.
    """
    source = random.Random(seed_from("caption", *parts, example["id"]))
    made = FORMATS[calibration["format"]](example, source, calibration)
    return _checked(_opened({"id": example["id"], **made}))


def _opened(sample: dict) -> dict:
    for key in ("image", "left", "right"):
        if key in sample:
            sample[key] = opened(sample[key])
    return sample


def _checked(sample: dict) -> dict:
    """Refuses a sample without words to learn from."""
    for key in ("target", "caption", "text"):
        if key in sample and not sample[key].strip():
            raise DataError(
                f"the {key} of the sample {sample['id']} is empty",
                allowed="at least one word",
                fix="Correct the data set, or leave the example out.",
            )
    return sample


def _prefix_target(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Splits a caption at random into a prefix for the prompt and the target, once and for all."""
    words = source.choice(example["captions"] or [""]).split()
    return {"image": example["image"], **_cut(words, source)}


def _text_prefix_target(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Splits the beginning of a text likewise."""
    return _cut(example["text"].split()[:MOST_WORDS], source)


def _cut(words: list[str], source: random.Random) -> dict:
    cut = source.randrange(1, len(words)) if len(words) > 1 else 0
    return {"prompt": " ".join(words[:cut]), "target": " ".join(words[cut:])}


def _question_answer(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Takes a question, put into a prompt if there is one, and the answer of one annotator."""
    answer = source.choice(example["answers"] or [""])
    prompt = calibration.get("prompt", "{question}").format(question=example["question"])
    return {"image": example["image"], "prompt": prompt, "target": answer}


def _prompt_caption(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Takes a whole caption, after a prompt that is the same for all."""
    caption = source.choice(example["captions"] or [""])
    return {"image": example["image"], "prompt": calibration["prompt"], "target": caption}


def _image_caption(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    return {"image": example["image"], "caption": source.choice(example["captions"] or [""])}


def _image_label(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Makes a caption from the class."""
    caption = calibration["prompt"].format(label=example["label"])
    return {"image": example["image"], "caption": caption}


def _image_pair(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    left, right = example["images"]
    return {"left": left, "right": right, "text": example["text"], "label": example["label"]}


def _text_windows(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    return {"tokens": example["tokens"]}


FORMATS: dict[str, Callable[[Mapping, random.Random, Mapping], dict]] = {
    "prefix-target": _prefix_target,
    "text-prefix-target": _text_prefix_target,
    "question-answer": _question_answer,
    "prompt-caption": _prompt_caption,
    "image-caption": _image_caption,
    "image-label": _image_label,
    "image-pair": _image_pair,
    "text-windows": _text_windows,
}
