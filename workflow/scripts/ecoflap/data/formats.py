"""How an example becomes a sample that a model's ``encode`` takes."""

import random
from collections.abc import Callable, Mapping

from ecoflap.data.picture import opened
from ecoflap.data.wording import MOST_WORDS, worded
from ecoflap.errors import DataError
from ecoflap.seeds import seed_from


def prepare(example: Mapping, calibration: Mapping, *parts: object) -> dict:
    """Makes the sample of an example that a model's ``encode`` takes.

    Args:
        example: An example of the calibration's data set.
        calibration: ``format``, and what of ``prompt``, ``cut``, ``text_processor`` and
            ``max_words`` the format has.
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
    caption = _caption(example, source, calibration)
    return {"image": example["image"], **_cut(caption, source, calibration)}


def _text_prefix_target(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Splits the beginning of a text likewise."""
    text = " ".join(example["text"].split()[: calibration.get("max_words", MOST_WORDS)])
    return _cut(worded(text, calibration), source, calibration)


def _caption(example: Mapping, source: random.Random, calibration: Mapping) -> str:
    return worded(source.choice(example["captions"] or [""]), calibration)


def _cut(text: str, source: random.Random, calibration: Mapping) -> dict:
    """Splits a text between words anywhere, or between characters of its first half."""
    if calibration.get("cut") == "characters":
        cut = source.randint(0, len(text) // 2)
        return {"prompt": text[:cut], "target": text[cut:]}
    words = text.split()
    cut = source.randrange(1, len(words)) if len(words) > 1 else 0
    return {"prompt": " ".join(words[:cut]), "target": " ".join(words[cut:])}


def _question_answer(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Takes a question, put into a prompt if there is one, and the answer of one annotator."""
    answer = source.choice(example["answers"] or [""])
    question = worded(example["question"], calibration)
    prompt = calibration.get("prompt", "{question}").format(question=question)
    return {"image": example["image"], "prompt": prompt, "target": answer}


def _prompt_caption(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    """Takes a whole caption, after a prompt that is the same for all."""
    caption = _caption(example, source, calibration)
    return {"image": example["image"], "prompt": calibration["prompt"], "target": caption}


def _image_caption(example: Mapping, source: random.Random, calibration: Mapping) -> dict:
    return {"image": example["image"], "caption": _caption(example, source, calibration)}


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
