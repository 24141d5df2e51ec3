"""Numbers from stored predictions, with standard errors. Needs no model and no torch.

A metric takes the predictions of one task (see `ecoflap.evaluation.tasks`) and returns the value,
its standard error over the items, and the number of items. A value that is not defined, as the
CIDEr of one picture, is NaN, and its note says why; one that is infinite is a result.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecoflap.artifacts import json_number
from ecoflap.evaluation import captions
from ecoflap.evaluation.answers import cleaned, is_right, normalised, vqa_accuracy


class Value(NamedTuple):
    """A number, its standard error, the number of items behind it, and what to know of it."""

    value: float
    standard_error: float
    n: int
    note: str = ""


def _mean(items: np.ndarray, note: str = "") -> Value:
    if not len(items):
        return _undefined(0, note or "there is no item")
    spread = items.std(ddof=1) / math.sqrt(len(items)) if len(items) > 1 else math.nan
    return Value(float(items.mean()), float(spread), len(items), note)


def _undefined(n: int, why: str) -> Value:
    return Value(math.nan, math.nan, n, why)


def _of_pairs(predictions: pd.DataFrame, function, note: str = "") -> Value:
    """Averages a function of what was said and what would be right."""
    pairs = zip(predictions["text"], predictions["references"], strict=True)
    items = [float(function(text, list(references))) for text, references in pairs]
    return _mean(np.array(items), note)


def accuracy(predictions: pd.DataFrame) -> Value:
    """Fraction of predictions whose text is one of the references, letter for letter."""
    return _of_pairs(predictions, is_right)


def accuracy_of_choices(predictions: pd.DataFrame) -> Value:
    """Accuracy of predictions that choose the highest of some ``values``, where they are kept."""
    values = [np.asarray(found, dtype=float) for found in predictions["values"]]
    if values and all(len(found) == 1 for found in values):
        return _undefined(len(values), "there is one choice")
    return _of_pairs(predictions, is_right, _not_finite(values))


def _not_finite(values: list[np.ndarray]) -> str:
    count = sum(bool(np.isnan(found).any()) for found in values)
    return f"{count} of {len(values)} have values that are no numbers, and are wrong" * (count > 0)


def official_vqa(predictions: pd.DataFrame) -> Value:
    """Mean of `answers.vqa_accuracy`: VQAv2, OK-VQA."""
    return _of_pairs(predictions, vqa_accuracy)


def normalised_accuracy(predictions: pd.DataFrame) -> Value:
    """Fraction of predictions that, once normalised, are a reference as it stands: GQA in LAVIS."""

    def right(text: str, answers: list[str]) -> bool:
        return bool(text.strip()) and normalised(text) in map(cleaned, answers)

    return _of_pairs(predictions, right)


def of_captions(predictions: pd.DataFrame, metric: str, tokenizer: str) -> Value:
    """Mean over pictures of a metric of `ecoflap.evaluation.captions`.

    Raises:
        DataError: naming the picture, if a reference has no word.
    """
    references = {i: list(found) for i, found in enumerate(predictions["references"])}
    candidates = {i: [text] for i, text in enumerate(predictions["text"])}
    captions.need_words(zip(predictions["id"], predictions["references"], strict=True))
    cut = [captions.tokenised(texts, tokenizer) for texts in (references, candidates)]
    if metric == "cider" and not captions.tells_apart(cut[0]):
        return _undefined(len(references), "no word tells the pictures apart")
    return _mean(captions.METRICS[metric](*cut))


def recall_at_1(predictions: pd.DataFrame) -> Value:
    """Fraction of queries whose true candidate (the first) beats all others; a tie is a miss.

    A query without other candidates is left out.
    """
    ranked = [np.asarray(values, dtype=float) for values in predictions["values"]]
    found = [values for values in ranked if len(values) > 1]
    alone = len(ranked) - len(found)
    notes = [f"{alone} of {len(ranked)} have one candidate, and are left out" * (alone > 0)]
    notes += [_not_finite(found)]
    hits = [float(values[0] > values[1:].max()) for values in found]
    return _mean(np.array(hits), "; ".join(filter(None, notes)))


def recall(predictions: pd.DataFrame, at: int) -> Value:
    """Fraction of queries with a true candidate among the first.

    ``values`` holds its rank and the last rank that it could have. Where none could be missed
    there is no such number.
    """
    ranks = [list(values) for values in predictions["values"]]
    if ranks and all(last <= at for _, last in ranks):
        return _undefined(len(ranks), f"there are too few candidates to miss one of {at}")
    return _mean(np.array([float(rank <= at) for rank, _ in ranks]))


def perplexity(predictions: pd.DataFrame) -> Value:
    """Exp of the mean loss per token; standard error over windows by the delta method.

    A loss that is no number counts as infinite: such a model gives the text no probability.
    """
    if predictions.empty:
        return _undefined(0, "there is no item")
    losses, tokens = np.array([list(values) for values in predictions["values"]], dtype=float).T
    broken = int(np.isnan(losses).sum())
    note = f"the loss of {broken} of {len(losses)} windows is no number" * (broken > 0)
    mean = np.where(np.isnan(losses), math.inf, losses).sum() / tokens.sum()
    try:
        value = math.exp(mean)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        return Value(value, math.nan, len(losses), note)
    return Value(value, value * _mean(losses / tokens).standard_error, len(losses), note)


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
    "classification": {"accuracy": (accuracy_of_choices, None)},
    "image-pair": {"accuracy": (accuracy, None)},
    "multiple-choice": {"accuracy": (accuracy_of_choices, None)},
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
        One dict per number: metric, subset, value, standard_error, n, and a note where there is
        one. What is not defined is None; an infinite value is the text "inf", as JSON has none.
    """
    kind, rows = task["kind"], []
    found = _metrics_of(task)
    for name, (metric, subset) in found.items():
        part = predictions if subset is None else predictions[predictions["subset"] == subset]
        rows.append({"metric": name, "subset": "", **_for_json(metric(part))})
    if kind in BY_SUBSET:
        for subset, part in predictions.groupby("subset", sort=True):
            if subset:
                rows += [
                    {"metric": name, "subset": subset, **_for_json(metric(part))}
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


def _for_json(found: Value) -> dict:
    """Returns a value as it is stored; JSON has no NaN and no infinity."""
    number = {
        "value": json_number(found.value),
        "standard_error": json_number(found.standard_error),
        "n": found.n,
    }
    return number | ({"note": found.note} if found.note else {})
