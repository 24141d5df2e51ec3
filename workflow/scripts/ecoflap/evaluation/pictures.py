"""Makes sure, before hours of evaluation, that a dense model sees the pictures of its tasks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ecoflap import data
from ecoflap.data.encoding import naming
from ecoflap.data.formats import prepare
from ecoflap.engine.checks import check_batch
from ecoflap.plugins import FAMILIES, TASKS

if TYPE_CHECKING:
    from ecoflap.models.model import Model

SAMPLES = 2  # a contrastive loss needs two


def check_tasks(model: "Model", suite: Mapping[str, Mapping]) -> None:
    """Refuses a dense model whose logits do not depend on the pictures of a task.

    Args:
        model: The model; one that is pruned already is left alone, since it may be blind for that.
        suite: Config entries of the tasks, by name.

    Raises:
        ModelError: as `ecoflap.engine.checks.check_batch`.
    """
    for task in suite.values():
        taken = FAMILIES[model.family].formats if model.family in FAMILIES else ()
        form = next((form for form in TASKS[task["kind"]].formats if form in taken), None)
        if form is None or model.masks:
            continue
        examples = data.load({**task["dataset"], "limit": SAMPLES})
        settings = {"format": form, "prompt": (task.get("prompts") or [task.get("prompt", "")])[0]}
        samples = [prepare(_whole(example), settings) for example in examples]
        check_batch(model, model.to_device(naming(samples, model.encode)))


def _whole(example: Mapping) -> dict:
    """Returns an example with the captions that its format asks for."""
    return {"captions": [example["caption"]], **example} if "caption" in example else dict(example)
