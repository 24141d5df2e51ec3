"""Chooses, prepares and describes the calibration samples of a model."""

import hashlib
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from ecoflap import data
from ecoflap.data.pictures import opened
from ecoflap.errors import DataError, message
from ecoflap.runtime import seed_from

if TYPE_CHECKING:
    from ecoflap.models.base import Model

MOST_WORDS = 50  # of a text that is split into prompt and target, as published for FlanT5
TEXTS = ("prompt", "target", "caption", "text", "label")  # of a sample, for its manifest


def collect(model: "Model", calibration: Mapping, seed: int) -> tuple[dict, dict]:
    """Draws samples without replacement and encodes them for a model.

    Args:
        model: The model whose processor encodes.
        calibration: ``dataset``, ``format``, ``samples``, and ``window`` (tokens) for text.
        seed: Chooses the samples and, by sample, the split of a caption.

    Returns:
        Tensors by name, each [samples, ...], and the manifest: sample ids, texts, and the
        fingerprint of what was drawn.

    Raises:
        DataError: if the data set has fewer samples than asked for.
    """
    chosen, _ = _draw(model, calibration, seed)
    return _encode(model, calibration, chosen, seed)


def held_out(model: "Model", calibration: Mapping, seed: int) -> tuple[dict, dict]:
    """Draws further samples, none of which `collect` draws with the same seed.

    Args:
        model: The model whose processor encodes.
        calibration: As for `collect`, with ``held_out``, the number of samples.
        seed: As for `collect`.

    Returns:
        What `collect` returns.

    Raises:
        DataError: if the data set has too few samples left.
    """
    _, rest = _draw(model, calibration, seed)
    count = calibration["held_out"]
    if count > len(rest):
        raise DataError(
            message(
                f"{count} held-out samples asked for, {len(rest)} left",
                f"at most {len(rest)}",
                "Lower held_out or samples, or use a larger split.",
            )
        )
    chosen = random.Random(seed_from("held-out", seed)).sample(rest, count)
    return _encode(model, calibration, chosen, seed)


def _draw(model: "Model", calibration: Mapping, seed: int) -> tuple[list[dict], list[dict]]:
    """Returns the examples drawn for calibration, and all others."""
    examples = data.load(calibration["dataset"])
    if calibration["format"] == "text-windows":
        examples = _windows(model, examples, calibration["window"])
    count = calibration["samples"]
    if count > len(examples):
        raise DataError(
            message(
                f"{count} calibration samples asked for, {len(examples)} found",
                f"at most {len(examples)}",
                "Lower samples or use a larger split.",
            )
        )
    chosen = random.Random(seed_from("calibration", seed)).sample(examples, count)
    drawn = {example["id"] for example in chosen}
    return chosen, [example for example in examples if example["id"] not in drawn]


def _encode(
    model: "Model", calibration: Mapping, chosen: list[dict], seed: int
) -> tuple[dict, dict]:
    make = FORMATS[calibration["format"]]
    prepared = []
    for example in chosen:
        source = random.Random(seed_from("caption", seed, example["id"]))
        prepared.append(_opened({"id": example["id"], **make(example, source, calibration)}))
    samples = [
        {"id": e["id"], **{k: e[k] for k in TEXTS if k in e}} for e in map(_checked, prepared)
    ]
    manifest = {"samples": samples, "fingerprint": _fingerprint(prepared)}
    return model.encode(prepared), manifest


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
                message(
                    f"the {key} of the calibration sample {sample['id']} is empty",
                    "at least one word",
                    "Correct the data set, or leave the example out.",
                )
            )
    return sample


def batches(
    samples: Mapping[str, torch.Tensor], batch_size: int, limit: int | None = None
) -> list[dict[str, torch.Tensor]]:
    """Cuts stored samples into batches.

    Args:
        samples: Tensors [n, ...].
        batch_size: Samples per batch; the last may be smaller.
        limit: Use only the first samples (they are in random order already).

    Raises:
        DataError: if fewer than ``limit`` samples are stored, or a number is below 1.
    """
    stored = len(next(iter(samples.values())))
    count = stored if limit is None else limit
    for what, number in (("batch size", batch_size), ("limit", count)):
        if number < 1:
            raise DataError(message(f"{what} {number}", "at least 1", "Correct it."))
    if count > stored:
        raise DataError(
            message(
                f"{count} samples asked for, {stored} stored",
                f"at most {stored}",
                "Raise samples of the calibration set.",
            )
        )
    return [
        {name: tensor[start : min(start + batch_size, count)] for name, tensor in samples.items()}
        for start in range(0, count, batch_size)
    ]


def _windows(model: "Model", texts: list[dict], length: int) -> list[dict]:
    return [
        {"id": f"{text['id']}/window-{length}-{index}", "tokens": tokens}
        for text in texts
        for index, tokens in enumerate(model.windows(text["text"], length))
    ]


def _prefix_target(example: dict, source: random.Random, calibration: Mapping) -> dict:
    """Splits a caption at random into a prefix for the prompt and the target, once and for all."""
    words = source.choice(example["captions"] or [""]).split()
    return {"image": example["image"], **_cut(words, source)}


def _text_prefix_target(example: dict, source: random.Random, calibration: Mapping) -> dict:
    """Splits the beginning of a text likewise."""
    return _cut(example["text"].split()[:MOST_WORDS], source)


def _cut(words: list[str], source: random.Random) -> dict:
    cut = source.randrange(1, len(words)) if len(words) > 1 else 0
    return {"prompt": " ".join(words[:cut]), "target": " ".join(words[cut:])}


def _question_answer(example: dict, source: random.Random, calibration: Mapping) -> dict:
    """Takes a question and the answer of one annotator."""
    answer = source.choice(example["answers"] or [""])
    return {"image": example["image"], "prompt": example["question"], "target": answer}


def _image_caption(example: dict, source: random.Random, calibration: Mapping) -> dict:
    return {"image": example["image"], "caption": source.choice(example["captions"] or [""])}


def _image_label(example: dict, source: random.Random, calibration: Mapping) -> dict:
    """Makes a caption from the class."""
    caption = calibration["prompt"].format(label=example["label"])
    return {"image": example["image"], "caption": caption}


def _image_pair(example: dict, source: random.Random, calibration: Mapping) -> dict:
    left, right = example["images"]
    return {"left": left, "right": right, "text": example["text"], "label": example["label"]}


def _text_windows(example: dict, source: random.Random, calibration: Mapping) -> dict:
    return {"tokens": example["tokens"]}


FORMATS: dict[str, Callable[[dict, random.Random, Mapping], dict]] = {
    "prefix-target": _prefix_target,
    "text-prefix-target": _text_prefix_target,
    "question-answer": _question_answer,
    "image-caption": _image_caption,
    "image-label": _image_label,
    "image-pair": _image_pair,
    "text-windows": _text_windows,
}


def _fingerprint(examples: list[dict]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        for key in sorted(example):
            value = example[key]
            content = value if isinstance(value, str) else _bytes(value)
            digest.update(key.encode() + b"\0")
            digest.update(content.encode() if isinstance(content, str) else content)
    return digest.hexdigest()


def _bytes(value) -> bytes:
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value.tobytes()
