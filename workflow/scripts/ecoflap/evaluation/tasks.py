"""Runs a model on a task; every kind of task returns predictions of one shape.

Columns: ``id``, ``subset`` (kind of question, direction of retrieval, or empty), ``text`` (what
the model said), ``references`` (what would be right), ``values`` (numbers it gave).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from tqdm import tqdm

from ecoflap import data
from ecoflap.data.pictures import opened
from ecoflap.errors import DataError, message

if TYPE_CHECKING:
    from ecoflap.models.base import Model

COLUMNS = ["id", "subset", "text", "references", "values"]
BATCH_SIZE = 64


def predict(model: "Model", task: Mapping) -> pd.DataFrame:
    """Runs a task.

    Args:
        model: A model with the methods that the kind of task needs.
        task: A config entry: ``kind``, ``dataset``, and the settings of its kind.

    Returns:
        One row per prediction.
    """
    examples = data.load(task["dataset"])
    return pd.DataFrame(KINDS[task["kind"]](model, examples, task), columns=COLUMNS)


def _chunks(items: Sequence, label: str, size: int = BATCH_SIZE) -> Iterator[Sequence]:
    starts = range(0, len(items), size)
    for start in tqdm(starts, desc=label, unit="batch", disable=None):
        yield items[start : start + size]


def _vqa(model: "Model", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    for chunk in _chunks(examples, "vqa"):
        prompts = [task["prompt"].format(question=e["question"]) for e in chunk]
        answers = model.generate(
            [opened(e["image"]) for e in chunk], prompts, max_new_tokens=task["max_new_tokens"]
        )
        for example, answer in zip(chunk, answers, strict=True):
            yield example["id"], example["kind"], answer, example["answers"], []


def _captioning(model: "Model", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    for chunk in _chunks(examples, "captioning"):
        captions = model.generate(
            [opened(e["image"]) for e in chunk],
            [task["prompt"]] * len(chunk),
            max_new_tokens=task["max_new_tokens"],
        )
        for example, caption in zip(chunk, captions, strict=True):
            yield example["id"], "", caption, example["captions"], []


def _retrieval(model: "Model", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    """Ranks by the likelihood of the caption; the true candidate always comes first."""
    for chunk in _chunks(examples, "retrieval", 8):
        queries = []
        for example in chunk:
            image, caption = opened(example["image"]), example["caption"]
            captions = [(image, other) for other in [caption, *example["other_captions"]]]
            images = [(other, caption) for other in [image, *example["other_images"]]]
            queries += [(example, "image-to-text", captions), (example, "text-to-image", images)]
        pairs = [pair for *_, candidates in queries for pair in candidates]
        values = model.log_likelihood(
            [image for image, _ in pairs],
            [task["prompt"]] * len(pairs),
            [caption for _, caption in pairs],
        )
        for example, subset, candidates in queries:
            own, values = values[: len(candidates)], values[len(candidates) :]
            yield example["id"], subset, "", [example["caption"]], own


def _classification(model: "Model", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    for chunk in _chunks(examples, "classification"):
        prompts = [[task["prompt"].format(label=c) for c in e["classes"]] for e in chunk]
        texts = list(dict.fromkeys(prompt for row in prompts for prompt in row))
        logits = model.similarity([opened(e["image"]) for e in chunk], texts)  # [chunk, texts]
        for example, row, own in zip(chunk, logits.tolist(), prompts, strict=True):
            values = [row[texts.index(prompt)] for prompt in own]
            best = max(range(len(values)), key=values.__getitem__)
            yield example["id"], "", example["classes"][best], [example["label"]], values


def _perplexity(model: "Model", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    for example in examples:
        windows = model.windows(example["text"], task["window"])
        if len(windows) < task["windows"]:
            raise DataError(
                message(
                    f"{task['windows']} windows of {example['id']} asked for, {len(windows)} found",
                    f"at most {len(windows)}",
                    "Lower windows, or use a longer text.",
                )
            )
        windows = windows[: task["windows"]]
        losses = [model.negative_log_likelihood(chunk) for chunk in _chunks(windows, "windows", 4)]
        for index, loss in enumerate(torch.cat(losses).tolist()):
            values = [loss, float(task["window"] - 1)]
            yield f"{example['id']}/window-{index}", "", "", [], values


KINDS: dict[str, Callable] = {
    "vqa": _vqa,
    "captioning": _captioning,
    "retrieval": _retrieval,
    "classification": _classification,
    "perplexity": _perplexity,
}
