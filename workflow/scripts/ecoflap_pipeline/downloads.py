"""Fetches what tasks read besides models and configured data sets."""

from collections.abc import Mapping

from ecoflap import data
from ecoflap.errors import DataError
from ecoflap.evaluation import captions
from ecoflap.plugins import FROM_HUB


def fetch(task: Mapping) -> list[str]:
    """Brings a task's data to where a run without network finds them.

    Args:
        task: Its config entry.

    Returns:
        What was fetched.

    Raises:
        DataError: if it cannot be had.
    """
    fetched = []
    if task["kind"] == "multiple-choice":
        _fetch_questions(task)
        fetched.append(f"the task {task['task']} of lm-eval")
    elif task["dataset"]["name"] in FROM_HUB:
        data.load({**task["dataset"], "limit": None})
        fetched.append(f"the data set {task['dataset']['name']}")
    if "spice" in task.get("metrics", []) and captions.missing_corenlp():
        from pycocoevalcap.spice.get_stanford_models import get_stanford_models

        get_stanford_models()
        fetched.append("CoreNLP")
    return fetched


def _fetch_questions(task: Mapping) -> None:
    from lm_eval.tasks import TaskManager

    try:
        TaskManager(include_path=task.get("include_path")).load([task["task"]])
    except Exception as error:  # of many kinds; all mean that it is not here
        raise DataError(
            f"cannot fetch the task '{task['task']}' ({type(error).__name__}: {error})",
            allowed="a task that lm-eval knows and whose data can be reached",
            fix="Check its name and your network.",
        ) from error
