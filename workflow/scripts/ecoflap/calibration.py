"""Chooses, prepares and describes the calibration samples of a model."""

import hashlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap import data
from ecoflap.data.pictures import opened
from ecoflap.encoding import naming
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
    chosen, _ = draw(model, {**calibration, "held_out": 0}, seed)
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
    _, further = draw(model, calibration, seed)
    return _encode(model, calibration, further, seed)


def draw(model: "Model", calibration: Mapping, seed: int) -> tuple[list[dict], list[dict]]:
    """Draws examples without replacement.

    Args:
        model: The model whose tokenizer cuts texts into windows.
        calibration: As for `collect`; ``held_out``: further examples. Without ``samples`` all
            that ``held_out`` leaves.
        seed: Chooses the examples.

    Returns:
        The examples, and the held-out ones, none of which is among the first.

    Raises:
        DataError: if the data set has fewer examples than asked for.
    """
    examples = examples_of(model, calibration)
    chosen = choose(examples, calibration, seed)
    taken = {example["id"] for example in chosen}
    return chosen, choose_held_out(examples, taken, calibration.get("held_out", 0), seed)


def examples_of(model: "Model", calibration: Mapping) -> list[dict]:
    """Returns all that samples are drawn from, texts cut into windows."""
    examples = data.load(calibration["dataset"])
    if calibration["format"] == "text-windows":
        examples = _windows(model, examples, calibration["window"])
    return examples


def choose(examples: Sequence[dict], calibration: Mapping, seed: int) -> list[dict]:
    """Draws the examples that are calibrated with, or learned from; see `draw`."""
    count = calibration.get("samples", max(1, len(examples) - calibration.get("held_out", 0)))
    if count > len(examples):
        raise DataError(
            message(
                f"{count} samples asked for, {len(examples)} found",
                f"at most {len(examples)}",
                "Lower samples or use a larger split.",
            )
        )
    return random.Random(seed_from("calibration", seed)).sample(examples, count)


def choose_held_out(
    examples: Sequence[dict], taken: Collection[str], count: int, seed: int
) -> list[dict]:
    """Draws examples whose ids are not among those taken; see `draw`."""
    rest = [example for example in examples if example["id"] not in taken]
    if count > len(rest):
        raise DataError(
            message(
                f"{count} held-out samples asked for, {len(rest)} left that are not learned from",
                f"at most {len(rest)}",
                "Lower held_out or samples, or use a larger split.",
            )
        )
    return random.Random(seed_from("held-out", seed)).sample(rest, count)


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


def _encode(
    model: "Model", calibration: Mapping, chosen: list[dict], seed: int
) -> tuple[dict, dict]:
    prepared = [prepare(example, calibration, seed) for example in chosen]
    samples = [{"id": e["id"], **{k: e[k] for k in TEXTS if k in e}} for e in prepared]
    manifest = {"samples": samples, "fingerprint": _fingerprint(prepared)}
    return naming(prepared, model.encode), manifest


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
                    f"the {key} of the sample {sample['id']} is empty",
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
    """Takes a question, put into a prompt if there is one, and the answer of one annotator."""
    answer = source.choice(example["answers"] or [""])
    prompt = calibration.get("prompt", "{question}").format(question=example["question"])
    return {"image": example["image"], "prompt": prompt, "target": answer}


def _prompt_caption(example: dict, source: random.Random, calibration: Mapping) -> dict:
    """Takes a whole caption, after a prompt that is the same for all."""
    caption = source.choice(example["captions"] or [""])
    return {"image": example["image"], "prompt": calibration["prompt"], "target": caption}


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
    "prompt-caption": _prompt_caption,
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
