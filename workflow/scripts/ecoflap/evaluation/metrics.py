"""Numbers from stored predictions, with standard errors. Needs no model and no torch.

A metric takes the predictions of one task (see `ecoflap.evaluation.tasks`) and returns the value,
its standard error over the items, and the number of items.
"""

import math
import re
from typing import NamedTuple

import numpy as np
import pandas as pd


class Value(NamedTuple):
    """A number, its standard error, and the number of items behind it."""

    value: float
    standard_error: float
    n: int


def _mean(items: np.ndarray) -> Value:
    spread = items.std(ddof=1) / math.sqrt(len(items)) if len(items) > 1 else math.nan
    return Value(float(items.mean()), float(spread), len(items))


def accuracy(predictions: pd.DataFrame) -> Value:
    """Fraction of predictions whose text is one of the references, letter for letter."""
    pairs = zip(predictions["text"], predictions["references"], strict=True)
    return _mean(np.array([float(text in list(references)) for text, references in pairs]))


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


def perplexity(predictions: pd.DataFrame) -> Value:
    """Exp of the mean loss per token; standard error over windows by the delta method."""
    losses, tokens = np.array([list(values) for values in predictions["values"]]).T
    value = math.exp(losses.sum() / tokens.sum())
    return Value(value, value * _mean(losses / tokens).standard_error, len(losses))


# What is computed for each kind of task: name -> (metric, subset of the predictions).
METRICS = {
    "vqa": {"accuracy": (accuracy, None)},
    "captioning": {"cider": (cider, None)},
    "retrieval": {
        "tr1": (recall_at_1, "image-to-text"),
        "ir1": (recall_at_1, "text-to-image"),
    },
    "classification": {"accuracy": (accuracy, None)},
    "perplexity": {"perplexity": (perplexity, None)},
}


def compute(kind: str, predictions: pd.DataFrame) -> list[dict]:
    """Computes all metrics of a kind of task; for questions, by kind of question as well.

    Args:
        kind: The kind of task.
        predictions: Rows of one task.

    Returns:
        One dict per number: metric, subset, value, standard_error, n.
    """
    rows = []
    for name, (metric, subset) in METRICS[kind].items():
        part = predictions if subset is None else predictions[predictions["subset"] == subset]
        rows.append({"metric": name, "subset": "", **_finite(metric(part))})
    if kind == "vqa":
        for subset, part in predictions.groupby("subset", sort=True):
            rows.append({"metric": "accuracy", "subset": subset, **_finite(accuracy(part))})
    return rows


def _finite(value: Value) -> dict:
    number = value._asdict()
    if math.isnan(number["standard_error"]):
        number["standard_error"] = None  # one item has no spread, and JSON has no NaN
    return number
