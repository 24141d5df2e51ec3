"""What an experiment is made of: models, variants, sparsities, seeds, tasks. Needs no torch."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ecoflap.plugins import CRITERIA, FAMILIES, IMPORTED, TASKS, WHOLE_MODEL
from ecoflap_pipeline.code import literal

DENSE = "dense"
DENSE_SPARSITY = "0.0"


class Point(NamedTuple):
    """One model as it is evaluated."""

    model: str
    variant: str
    seed: int
    sparsity: str


def dense(config: Mapping, model: str) -> Point:
    """Returns a model that is not pruned."""
    return Point(model, DENSE, config["seeds"][0], DENSE_SPARSITY)


def is_chosen(variant: Mapping) -> bool:
    """Tells whether a variant's plan is chosen by the loss of pruned models."""
    return variant.get("allocation") in ("auto", "search")


def levels(variant: Mapping) -> Iterator[Mapping]:
    """Yields the allocations that a variant is made of: the candidates, and what is inside each."""
    for entry in variant.get("candidates", [variant]):
        yield entry
        if "inside" in entry:
            yield entry["inside"]


def scores_of(variant: Mapping) -> list[str]:
    """Returns the scores that the allocations of a variant are made from."""
    return list(dict.fromkeys(level["score"] for level in levels(variant) if "score" in level))


def pruned_as(config: Mapping, variant: str) -> str:
    """Returns the variant that is pruned: for a fine-tuned one that which it comes from."""
    return config["variants"][variant].get("from", variant)


def pruned_model(config: Mapping, model: str) -> str:
    """Returns the model that is pruned: for one with towers of another that other one."""
    return config["models"][model].get("towers_from", {}).get("model", model)


def finetuning_of(config: Mapping, model: str, variant: str) -> str | None:
    """Returns how a variant of a model is fine-tuned, None if it is not."""
    named = config["variants"][variant].get("finetune")
    return named[model] if isinstance(named, Mapping) else named


def calibration_of(config: Mapping, model: str, variant: str) -> str:
    """Returns the calibration set that a variant uses for a model."""
    entry = config["variants"][pruned_as(config, variant)]
    return entry.get("calibration", config["models"][model]["calibration"])


def needs_samples(variant: Mapping) -> bool:
    """Tells whether a variant's criterion reads calibration samples."""
    criterion = variant["criterion"]
    if criterion in CRITERIA:
        reads = literal(CRITERIA.module_name(criterion), "NEEDS_INPUTS") is not False
    else:
        reads = criterion not in ("global-magnitude", IMPORTED)
    return reads or is_chosen(variant)


def needs_plan(variant: Mapping) -> bool:
    """Tells whether a variant follows an allocation; one threshold for all matrices does not."""
    return variant["criterion"] not in WHOLE_MODEL


def points(config: Mapping, experiment: str) -> list[Point]:
    """Lists the pruned models of an experiment.

    What does not depend on calibration data is made once, with the first seed.
    """
    entry = config["experiments"][experiment]
    found = []
    for model in entry["models"]:
        for name in entry.get("variants", []):
            variant = config["variants"][pruned_as(config, name)]
            seeded = needs_samples(variant) or scores_of(variant)
            seeds = seeds_of(config, experiment, name)
            for sparsity in entry["sparsities"]:
                for seed in seeds if seeded else seeds[:1]:
                    found.append(Point(model, name, seed, sparsity))
    return found


def seeds_of(config: Mapping, experiment: str, variant: str | None = None) -> list[int]:
    """Returns the calibration seeds of an experiment, or of one of its variants."""
    own = config["experiments"][experiment].get("seeds", {})
    return own if isinstance(own, list) else own.get(variant, config["seeds"])


def takes(config: Mapping, experiment: str, model: str) -> list[str]:
    """Returns the tasks of an experiment that suit a model's family, or are named by it."""
    entry = config["models"][model]
    return [
        task
        for task in config["experiments"][experiment].get("tasks", [])
        if config["tasks"][task]["kind"] in FAMILIES[entry["family"]].tasks
        and task in entry.get("tasks", [task])
    ]


def dense_models(config: Mapping, experiment: str) -> list[str]:
    """Returns the models whose dense numbers an experiment shows."""
    entry = config["experiments"][experiment]
    return list(dict.fromkeys([*entry["models"], *entry.get("dense_from", {}).values()]))


def changed_points(config: Mapping, experiment: str) -> list[Point]:
    """Lists what is scored and pruned for an experiment.

    A model with towers of another is evaluated with what that other one lost; a fine-tuned variant
    is pruned as the one it comes from.
    """
    return list(
        dict.fromkeys(
            point._replace(
                model=pruned_model(config, point.model),
                variant=pruned_as(config, point.variant),
            )
            for point in points(config, experiment)
        )
    )


def suites_of(config: Mapping, tasks: list[str]) -> list[str]:
    """Returns the suites that hold some tasks; a task in no suite is its own."""
    holder = {task: name for name, members in config["suites"].items() for task in members}
    return list(dict.fromkeys(holder.get(task, task) for task in tasks))


def tasks_of(config: Mapping, suite: str) -> dict[str, dict]:
    """Returns what evaluation reads of the tasks of a suite, with local folders filled in."""
    entries = {name: config["tasks"][name] for name in config["suites"].get(suite, [suite])}
    found = {
        name: {key: value for key, value in entry.items() if key != "label"}
        for name, entry in entries.items()
    }
    for entry in found.values():
        if "dataset" in entry:
            entry["dataset"] = located(config, entry["dataset"])
    return found


def metrics_of(task: Mapping) -> list[str]:
    """Returns what a task measures."""
    usual = ["cider"] if task["kind"] == "captioning" else TASKS[task["kind"]].metrics
    return list(task.get("metrics", usual))


def located(config: Mapping, dataset: Mapping) -> dict:
    """Returns a data set entry with all that says where it is and what form it has."""
    name, split = dataset["name"], dataset["split"]
    source = dict(config["datasets"].get(name, {}))
    folder = config["data_folders"].get(name, source.get("folder"))
    source.pop("licence", None)
    files = source.pop("splits", {}).get(split)
    return {
        **dataset,
        **source,
        **({"files": files} if files else {}),
        **({"folder": folder} if folder else {}),
    }
