"""What each rule reads of the configuration: its params, and the config of its headers.

Each function takes the merged configuration and the wildcards of its rule, of which it ignores
those that do not matter to it. Needs no torch.
"""

from collections.abc import Callable, Mapping

from ecoflap import targets
from ecoflap.allocation import METHODS
from ecoflap.checks_leaks import asked
from ecoflap.readiness import absent


def _some(entry: Mapping, *keys: str) -> dict:
    return {key: entry[key] for key in keys if key in entry}


def prepare_model(config: Mapping, *, model: str, **_: str) -> dict:
    """Returns where a checkpoint comes from and how it is read."""
    return _some(config["models"][model], "source", "family", "blocks")


def check_dataset(config: Mapping, *, dataset: str, split: str, view: str, **_: str) -> dict:
    """Returns where a data set is, and its form."""
    return targets.located(config, {"name": dataset, "split": split, "view": view})


def check_overlap(config: Mapping, *, dataset: str, split: str, view: str, **_: str) -> dict:
    """Returns where the samples come from, and what the models that get them are asked.

    With the files of the latter that are not here, so that they are compared once they are.
    """
    drawn = {"name": dataset, "split": split, "view": view}
    evaluated = {
        task: targets.located(config, config["tasks"][task]["dataset"])
        for task in asked(config, drawn)
    }
    return {
        "drawn": targets.located(config, drawn),
        "evaluated": evaluated,
        "absent": {task: gone for task, at in evaluated.items() if (gone := absent(at))},
    }


def fetch_task(config: Mapping, *, task: str, **_: str) -> dict:
    """Returns the task."""
    return targets.tasks_of(config, task)[task]


def _calibration(config: Mapping, name: str) -> dict:
    entry = config["calibrations"][name]
    return {**entry, "dataset": targets.located(config, entry["dataset"])}


def extract_calibration(config: Mapping, *, model: str, calibration: str, **_: str) -> dict:
    """Returns what samples to draw; ``held_out`` samples are not among them."""
    entry = _calibration(config, calibration)
    entry.pop("held_out", None)
    return {"calibration": entry, **_some(config["models"][model], "blocks")}


def compute_scores(config: Mapping, *, model: str, score: str, **_: str) -> dict:
    """Returns how to score; not in how many shards, which changes no number."""
    entry = {key: value for key, value in config["scores"][score].items() if key != "shards"}
    return {"score": entry, "loading": _some(config["models"][model], "dtype", "offload", "blocks")}


def allocate_sparsity(config: Mapping, *, variant: str, sparsity: str, **_: str) -> dict:
    """Returns the settings of the allocation."""
    entry = config["variants"][variant]
    settings = _some(entry, "granularity", "reduction", "budget")
    settings["method"] = entry.get("allocation", "uniform")
    if METHODS[settings["method"]].bounded:
        settings["max_sparsity"] = targets.max_sparsity(entry, sparsity)
    if ":" in entry.get("pattern", ""):
        settings["of"] = int(entry["pattern"].partition(":")[2])
    return {"sparsity": sparsity, "allocation": settings}


def choose_max_sparsity(
    config: Mapping, *, model: str, variant: str, sparsity: str, **_: str
) -> dict:
    """Returns how to allocate, prune, and measure on held-out samples."""
    held_out = _calibration(config, targets.calibration_of(config, model, variant))
    pruning = prune_model(config, model=model, variant=variant, sparsity=sparsity)
    allocation = allocate_sparsity(config, variant=variant, sparsity=sparsity)["allocation"]
    return {**pruning, "allocation": allocation, "calibration": held_out}


def prune_model(config: Mapping, *, model: str, variant: str, sparsity: str, **_: str) -> dict:
    """Returns the criterion and how to walk the model."""
    entry = config["models"][model]
    return {
        "sparsity": sparsity,
        "pruning": _some(
            config["variants"][variant], "criterion", "group", "pattern", "checkpoint"
        ),
        "loading": _some(entry, "dtype", "offload", "blocks"),
        "batch_size": entry["batch_size"],
    }


def finetune_model(config: Mapping, *, model: str, variant: str, **_: str) -> dict:
    """Returns how to train, on what, and the samples per forward; weights are float32."""
    entry = config["finetuning"][targets.finetuning_of(config, model, variant)]
    data = [{**part, "dataset": targets.located(config, part["dataset"])} for part in entry["data"]]
    return {
        "finetuning": {**entry, "data": data},
        "loading": _some(config["models"][model], "blocks"),
        "batch_size": config["models"][model]["batch_size"],
    }


def evaluate_model(config: Mapping, *, model: str, suite: str, **_: str) -> dict:
    """Returns the tasks of a suite and how to load the model."""
    return {
        "tasks": targets.tasks_of(config, suite),
        "loading": _some(config["models"][model], "dtype", "blocks"),
    }


def export_checkpoint(
    config: Mapping, *, model: str, variant: str, sparsity: str, **_: str
) -> dict:
    """Returns how to load the model, and what its card says of where it comes from."""
    entry = config["models"][model]
    method = config["variants"][targets.pruned_as(config, variant)]
    tuning = targets.finetuning_of(config, model, variant)
    pruned = entry.get("vision_from", model)
    told = {
        "model": _some(entry, "label", "source", "licence"),
        "variant": {**method, "label": config["variants"][variant]["label"]},
        "sparsity": sparsity,
    }
    if "score" in method:
        told["score"] = config["scores"][method["score"]]
    if "score" in method or targets.needs_samples(method):
        told["calibration"] = _calibration(config, targets.calibration_of(config, pruned, variant))
    if tuning:
        told |= {"from": method["label"], "finetuning": config["finetuning"][tuning]}
    return {"card": told, "loading": _some(entry, "dtype", "blocks")}


def compact_checkpoint(config: Mapping, **_: str) -> dict:
    """Returns nothing: what is packed is all in the export."""
    return {}


def loss_landscape(config: Mapping, *, landscape: str, **_: str) -> dict:
    """Returns the grid and what its loss is computed on."""
    entry = config["experiments"][landscape]
    (model,) = entry["models"]
    return {
        "grid": _some(entry, "radius", "steps"),
        "batches": _some(entry, "samples", "batch_size"),
        "loading": _some(config["models"][model], "dtype", "offload", "blocks"),
        "seed": config["seeds"][0],
    }


RULES: dict[str, Callable[..., dict]] = {
    function.__name__: function
    for function in (
        prepare_model,
        check_dataset,
        check_overlap,
        fetch_task,
        extract_calibration,
        compute_scores,
        allocate_sparsity,
        choose_max_sparsity,
        prune_model,
        finetune_model,
        evaluate_model,
        export_checkpoint,
        compact_checkpoint,
        loss_landscape,
    )
}
