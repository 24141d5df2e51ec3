"""Evaluates a model on several tasks in one go."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pandas as pd

from ecoflap.evaluation import metrics, tasks
from ecoflap.evaluation.pictures import check_tasks
from ecoflap.plugins import TASKS

if TYPE_CHECKING:
    from ecoflap.models.abilities import Writing
    from ecoflap.models.model import Model

log = logging.getLogger(__name__)


def evaluate(model: "Model", suite: Mapping[str, Mapping]) -> tuple[pd.DataFrame, list[dict]]:
    """Runs every task of a suite.

    Args:
        model: The model, dense or pruned.
        suite: Config entries of the tasks, by name.

    Returns:
        The predictions of all tasks with the column ``task``, and one dict per number: task,
        metric, subset, value, standard_error, n, and a note, as `metrics.compute` tells them; the
        note also tells what the checkpoint forces or forbids in generated texts.

    Raises:
        ModelError: as `ecoflap.evaluation.pictures.check_tasks`.
    """
    check_tasks(model, suite)
    predictions, numbers = [], []
    for name, task in suite.items():
        frame = tasks.predict(model, task)
        predictions.append(frame.assign(task=name))
        written = decoding(model, {name: task}).get(name, {})
        added = [f"generated with {key} {value}" for key, value in written.get("added", {}).items()]
        for row in metrics.compute(task, frame):
            if added:
                row["note"] = "; ".join(filter(None, [row.get("note"), *added]))
            numbers.append({"task": name, **row})
            if not row["subset"] or "note" in row:
                log.log(logging.WARNING if "note" in row else logging.INFO, "%s", _line(name, row))
    return pd.concat(predictions, ignore_index=True), numbers


def _line(task: str, row: Mapping) -> str:
    """Returns a number as the log tells it."""
    number = "not defined" if row["value"] is None else f"{float(row['value']):.4f}"
    subset = f" {row['subset']}" if row["subset"] else ""
    note = f": {row['note']}" if "note" in row else ""
    return f"{task}{subset} {row['metric']}: {number} (n = {row['n']}){note}"


def decoding(model: "Model", suite: Mapping[str, Mapping]) -> dict[str, dict]:
    """Returns how texts are generated, for each task of a suite that asks for texts."""
    return {
        name: cast("Writing", model).decoding(**tasks.search(task))
        for name, task in suite.items()
        if TASKS[task["kind"]].written
    }
