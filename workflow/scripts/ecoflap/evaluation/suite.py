"""Evaluates a model on several tasks in one go."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ecoflap.evaluation import metrics, tasks
from ecoflap.evaluation.pictures import check_tasks

if TYPE_CHECKING:
    from ecoflap.models.base import Model

log = logging.getLogger(__name__)


def evaluate(model: "Model", suite: Mapping[str, Mapping]) -> tuple[pd.DataFrame, list[dict]]:
    """Runs every task of a suite.

    Args:
        model: The model, dense or pruned.
        suite: Config entries of the tasks, by name.

    Returns:
        The predictions of all tasks with the column ``task``, and one dict per number: task,
        metric, subset, value, standard_error, n.

    Raises:
        ModelError: as `ecoflap.evaluation.pictures.check_tasks`.
    """
    check_tasks(model, suite)
    predictions, numbers = [], []
    for name, task in suite.items():
        frame = tasks.predict(model, task)
        predictions.append(frame.assign(task=name))
        for row in metrics.compute(task, frame):
            numbers.append({"task": name, **row})
            if not row["subset"]:
                log.info("%s %s: %.4f (n = %d)", name, row["metric"], row["value"], row["n"])
    return pd.concat(predictions, ignore_index=True), numbers
