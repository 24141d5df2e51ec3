"""Checks of what a table or a figure shows: tasks of models, labels, parts. Needs no torch."""

from collections.abc import Iterator, Mapping
from itertools import combinations

from ecoflap.errors import message
from ecoflap.plugins import FAMILIES, METRIC_LABELS, unknown
from ecoflap_pipeline.points import needs_plan, suites_of, takes, tasks_of


def problems(place: str, config: Mapping, name: str) -> Iterator[str]:
    """Yields what is wrong with an experiment whose names are all known.

    Args:
        place: Where it stands, for messages.
        config: The merged configuration.
        name: The experiment.
    """
    experiment = config["experiments"][name]
    if experiment.get("tasks"):
        yield from _task_problems(place, config, name, experiment)
    yield from _label_problems(place, config, name, experiment)
    yield from _dense_problems(place, config, name, experiment)
    for task, metrics in experiment.get("average", {}).items():
        if task not in experiment["tasks"]:
            yield f"{place}.average: " + unknown("task of this table", task, experiment["tasks"])
        for metric in metrics:
            if metric not in METRIC_LABELS:
                yield f"{place}.average: " + unknown("metric", metric, METRIC_LABELS)
    for variant in experiment.get("x", {}):
        if variant not in experiment["variants"]:
            yield f"{place}.x: " + unknown(
                "variant of this figure", variant, experiment["variants"]
            )
    if experiment.get("x_scale") == "log":
        for variant, value in experiment["x"].items():
            if isinstance(value, str) or value <= 0:
                yield message(
                    f"{place}.x.{variant}: {value!r} on a logarithmic axis",
                    "numbers above 0",
                    "Correct the value or remove x_scale.",
                )


def _task_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    """A task that suits one model may not suit another, but each must have its part."""
    models = experiment["models"]
    taken = {model: takes(config, name, model) for model in models}
    for task in experiment["tasks"]:
        if not any(task in tasks for tasks in taken.values()):
            kind = config["tasks"][task]["kind"]
            families = {config["models"][model]["family"] for model in models}
            allowed = "; ".join(
                f"{', '.join(FAMILIES[family].tasks)} for the family {family}"
                for family in sorted(families)
            )
            yield message(
                f"{place}: task '{task}' ({kind}) does not suit model "
                + " or ".join(f"'{model}'" for model in models),
                allowed + ", and what the key tasks of a model names",
                "Choose another task or model.",
            )
    for model, tasks in taken.items():
        kinds = FAMILIES[config["models"][model]["family"]].tasks
        if not tasks:
            yield message(
                f"{place}: no task suits model '{model}'",
                f"a task of the kind {', '.join(kinds)}",
                "Add a task or remove the model.",
            )
        for suite in suites_of(config, tasks):
            for task, entry in tasks_of(config, suite).items():
                if entry["kind"] not in kinds:
                    yield message(
                        f"{place}: task '{task}' ({entry['kind']}) of suite '{suite}' does not "
                        f"suit model '{model}'",
                        f"{', '.join(kinds)} for the family {config['models'][model]['family']}",
                        "Take it out of the suite.",
                    )


def _label_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    for kind in ("variants", "tasks"):
        labels = [config[kind][entry]["label"] for entry in experiment.get(kind, [])]
        labels += ["Dense"] if kind == "variants" else []
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield message(
                f"{place}: two {kind} with the label '{label}'",
                "a label of its own for each row and column",
                "Change one label.",
            )
    for one, other in combinations(experiment["models"], 2):
        label = config["models"][one]["label"]
        both = set(takes(config, name, one)) & set(takes(config, name, other))
        if label == config["models"][other]["label"] and both:
            yield message(
                f"{place}: models '{one}' and '{other}' with the label '{label}' both take "
                + ", ".join(sorted(both)),
                "one model for each task of a row",
                "Change one label, or name the tasks of each model with its key tasks.",
            )
    if experiment["kind"] == "training-curve":
        for variant in experiment["variants"]:
            if "from" not in config["variants"][variant]:
                yield message(
                    f"{place}: variant '{variant}' is not fine-tuned",
                    "variants with from and finetune",
                    "Remove it from this figure.",
                )
    if experiment["kind"] == "sparsity-per-block":
        for variant in experiment["variants"]:
            entry = config["variants"][variant]
            if "from" in entry or not needs_plan(entry):
                yield message(
                    f"{place}: variant '{variant}' has no allocation to draw",
                    "pruned variants with an allocation",
                    "Remove it from this figure.",
                )


def _dense_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    for model, other in experiment.get("dense_from", {}).items():
        if model not in experiment["models"]:
            yield f"{place}.dense_from: " + unknown(
                "model of this table", model, experiment["models"]
            )
        elif other not in config["models"]:
            yield f"{place}.dense_from: " + unknown("model", other, config["models"])
        elif takes(config, name, other) != takes(config, name, model):
            yield message(
                f"{place}.dense_from: '{other}' does not take the tasks of '{model}'",
                ", ".join(takes(config, name, model)),
                "Name a model of the same family.",
            )
