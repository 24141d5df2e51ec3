"""Numbers from stored predictions, with standard errors. Needs no model and no torch.

A metric takes the predictions of one task (see `ecoflap.evaluation.tasks`) and returns the value,
its standard error over the items, and the number of items.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

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


def words(text: str) -> str:
    """Lower-cases a text and keeps letters and digits, as words separated by one blank."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def cider(predictions: pd.DataFrame) -> Value:
    """CIDEr-D (Vedantam et al. 2015) by pycocoevalcap, on plain words.

    The data here are lower-case words, so its Java tokenizer would change nothing.
    """
    from pycocoevalcap.cider.cider import Cider

    references = {i: [words(r) for r in refs] for i, refs in enumerate(predictions["references"])}
    candidates = {i: [words(text)] for i, text in enumerate(predictions["text"])}
    _, values = Cider().compute_score(references, candidates)
    return _mean(np.asarray(values, dtype=np.float64))


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


# What is computed for each kind of task: name -> (metric, subset of the predictions).
DIRECTIONS = {"tr": "image-to-text", "ir": "text-to-image"}
SCORINGS = {"exact": accuracy, "vqa": official_vqa, "gqa": normalised_accuracy}
METRICS = {
    "corpus-retrieval": {
        f"{name}{at}": (functools.partial(recall, at=at), direction)
        for name, direction in DIRECTIONS.items()
        for at in (1, 5, 10)
    },
    "captioning": {"cider": (cider, None)},
    "retrieval": {
        "tr1": (recall_at_1, "image-to-text"),
        "ir1": (recall_at_1, "text-to-image"),
    },
    "classification": {"accuracy": (accuracy, None)},
    "perplexity": {"perplexity": (perplexity, None)},
}


def compute(task: Mapping, predictions: pd.DataFrame) -> list[dict]:
    """Computes all metrics of a task; for questions, by kind of question as well.

    Args:
        task: Its config entry: ``kind``, for questions ``scoring``.
        predictions: Its rows.

    Returns:
        One dict per number: metric, subset, value, standard_error, n.
    """
    rows, kind = [], task["kind"]
    found = METRICS.get(kind) or {"accuracy": (SCORINGS[task.get("scoring", "exact")], None)}
    for name, (metric, subset) in found.items():
        part = predictions if subset is None else predictions[predictions["subset"] == subset]
        rows.append({"metric": name, "subset": "", **_finite(metric(part))})
    if kind == "vqa":
        for subset, part in predictions.groupby("subset", sort=True):
            metric, _ = found["accuracy"]
            rows.append({"metric": "accuracy", "subset": subset, **_finite(metric(part))})
    return rows


def _finite(value: Value) -> dict:
    number = value._asdict()
    if math.isnan(number["standard_error"]):
        number["standard_error"] = None  # one item has no spread, and JSON has no NaN
    return number
