"""Numbers from stored predictions, with standard errors. Needs no model and no torch.

A metric takes the predictions of one task (see `ecoflap.evaluation.tasks`) and returns the value,
its standard error over the items, and the number of items.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecoflap.evaluation import captions
from ecoflap.evaluation.answers import normalised, vqa_accuracy


class Value(NamedTuple):
    """A number, its standard error, and the number of items behind it."""

    value: float
    standard_error: float
    n: int


def _mean(items: np.ndarray) -> Value:
    spread = items.std(ddof=1) / math.sqrt(len(items)) if len(items) > 1 else math.nan
    return Value(float(items.mean()), float(spread), len(items))


def _of_pairs(predictions: pd.DataFrame, function) -> Value:
    """Averages a function of what was said and what would be right."""
    pairs = zip(predictions["text"], predictions["references"], strict=True)
    return _mean(np.array([float(function(text, list(references))) for text, references in pairs]))


def accuracy(predictions: pd.DataFrame) -> Value:
    """Fraction of predictions whose text is one of the references, letter for letter."""
    return _of_pairs(predictions, lambda text, references: text in references)


def official_vqa(predictions: pd.DataFrame) -> Value:
    """Mean of `answers.vqa_accuracy`: VQAv2, OK-VQA."""
    return _of_pairs(predictions, vqa_accuracy)


def normalised_accuracy(predictions: pd.DataFrame) -> Value:
    """Fraction of predictions that are a reference once both are normalised: GQA."""
    return _of_pairs(
        predictions, lambda text, references: normalised(text) in map(normalised, references)
    )


def of_captions(predictions: pd.DataFrame, metric: str, tokenizer: str) -> Value:
    """Mean over pictures of a metric of `ecoflap.evaluation.captions`."""
    references = {i: list(found) for i, found in enumerate(predictions["references"])}
    candidates = {i: [text] for i, text in enumerate(predictions["text"])}
    cut = [captions.tokenised(texts, tokenizer) for texts in (references, candidates)]
    return _mean(captions.METRICS[metric](*cut))


def recall_at_1(predictions: pd.DataFrame) -> Value:
    """Fraction of queries whose true candidate (the first) beats all others; a tie is a miss."""
    ranked = [np.asarray(values) for values in predictions["values"]]
    return _mean(np.array([float(values[0] > values[1:].max()) for values in ranked]))


def recall(predictions: pd.DataFrame, at: int) -> Value:
    """Fraction of queries with a true candidate among the first; ``values`` holds its rank."""
    return _mean(np.array([float(values[0] <= at) for values in predictions["values"]]))


def perplexity(predictions: pd.DataFrame) -> Value:
    """Exp of the mean loss per token; standard error over windows by the delta method."""
    losses, tokens = np.array([list(values) for values in predictions["values"]]).T
    value = math.exp(losses.sum() / tokens.sum())
    return Value(value, value * _mean(losses / tokens).standard_error, len(losses))


DIRECTIONS = {"tr": "image-to-text", "ir": "text-to-image"}
SCORINGS = {"exact": accuracy, "vqa": official_vqa, "gqa": normalised_accuracy}
# What is computed for each other kind of task: name -> (metric, subset of the predictions).
METRICS = {
    "corpus-retrieval": {
        f"{name}{at}": (functools.partial(recall, at=at), direction)
        for name, direction in DIRECTIONS.items()
        for at in (1, 5, 10)
    },
    "retrieval": {
        "tr1": (recall_at_1, "image-to-text"),
        "ir1": (recall_at_1, "text-to-image"),
    },
    "classification": {"accuracy": (accuracy, None)},
    "image-pair": {"accuracy": (accuracy, None)},
    "multiple-choice": {"accuracy": (accuracy, None)},
    "perplexity": {"perplexity": (perplexity, None)},
}
BY_SUBSET = ("vqa", "captioning", "multiple-choice")  # by kind of question, domain, subject


def compute(task: Mapping, predictions: pd.DataFrame) -> list[dict]:
    """Computes all metrics of a task, of those in ``BY_SUBSET`` by subset as well.

    Args:
        task: Its config entry: ``kind``; ``scoring`` for questions, ``metrics`` and ``tokenizer``
            for captions.
        predictions: Its rows.

    Returns:
        One dict per number: metric, subset, value, standard_error, n.
    """
    kind, rows = task["kind"], []
    found = _metrics_of(task)
    for name, (metric, subset) in found.items():
        part = predictions if subset is None else predictions[predictions["subset"] == subset]
        rows.append({"metric": name, "subset": "", **_finite(metric(part))})
    if kind in BY_SUBSET:
        for subset, part in predictions.groupby("subset", sort=True):
            if subset:
                rows += [
                    {"metric": name, "subset": subset, **_finite(metric(part))}
                    for name, (metric, _) in found.items()
                ]
    return rows


def _metrics_of(task: Mapping) -> dict:
    """Returns name -> (metric, subset) of a task."""
    if task["kind"] == "vqa":
        return {"accuracy": (SCORINGS[task.get("scoring", "exact")], None)}
    if task["kind"] == "captioning":
        tokenizer = task.get("tokenizer", "plain")
        return {
            name: (functools.partial(of_captions, metric=name, tokenizer=tokenizer), None)
            for name in task.get("metrics", ["cider"])
        }
    return METRICS[task["kind"]]


def _finite(value: Value) -> dict:
    number = value._asdict()
    if math.isnan(number["standard_error"]):
        number["standard_error"] = None  # one item has no spread, and JSON has no NaN
    return number
