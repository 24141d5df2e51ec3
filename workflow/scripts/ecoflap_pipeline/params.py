"""What each rule reads of the configuration: its params, and the config of its headers.

Each function takes the merged configuration and the wildcards of its rule, of which it ignores
those that do not matter to it. Needs no torch.
"""

from collections.abc import Callable, Mapping

from ecoflap.data import mixes
from ecoflap_pipeline import points
from ecoflap_pipeline.config.leaks import asked
from ecoflap_pipeline.readiness import absent


def _some(entry: Mapping, *keys: str) -> dict:
    return {key: entry[key] for key in keys if key in entry}


def prepare_model(config: Mapping, *, model: str, **_: str) -> dict:
    """Returns where a checkpoint comes from and how it is read."""
    entry = config["models"][model]
    towers = _some(entry.get("towers_from", {}), "towers")
    return {**_some(entry, "source", "family", "blocks"), **towers}


def check_dataset(config: Mapping, *, dataset: str, split: str, view: str, **_: str) -> dict:
    """Returns where a data set is, and its form."""
    return points.located(config, {"name": dataset, "split": split, "view": view})


def check_overlap(config: Mapping, *, dataset: str, split: str, view: str, **_: str) -> dict:
    """Returns where the samples come from, and what the models that get them are asked.

    With the files of the latter that are not here, so that they are compared once they are.
    """
    drawn = {"name": dataset, "split": split, "view": view}
    evaluated = {
        task: points.located(config, config["tasks"][task]["dataset"])
        for task in asked(config, drawn)
    }
    return {
        "drawn": points.located(config, drawn),
        "evaluated": evaluated,
        "absent": {task: gone for task, at in evaluated.items() if (gone := absent(at))},
    }


def fetch_task(config: Mapping, *, task: str, **_: str) -> dict:
    """Returns the task."""
    return points.tasks_of(config, task)[task]


def _calibration(config: Mapping, name: str) -> dict:
    entry = config["calibrations"][name]
    found = [
        {**part, "dataset": points.located(config, part["dataset"])}
        for part in mixes.parts_of(entry)
    ]
    return {**entry, "parts": found} if "parts" in entry else found[0]


def extract_calibration(config: Mapping, *, model: str, calibration: str, **_: str) -> dict:
    """Returns what samples to draw; ``held_out`` samples are not among them.

    And how to load the model, whose dtype is no matter where it only encodes.
    """
    entry = _calibration(config, calibration)
    for other in ("held_out", "tokens"):
        entry.pop(other, None)
    answers = entry.get("targets", "data") == "generated"
    keys = ("blocks", "dtype") if answers else ("blocks",)
    return {"calibration": entry, **_some(config["models"][model], *keys)}


def compute_scores(config: Mapping, *, model: str, score: str, **_: str) -> dict:
    """Returns how to score; not in how many shards, which changes no number."""
    entry = {key: value for key, value in config["scores"][score].items() if key != "shards"}
    return {"score": entry, "loading": _some(config["models"][model], "dtype", "offload", "blocks")}


def allocate_sparsity(config: Mapping, *, variant: str, sparsity: str, **_: str) -> dict:
    """Returns the settings of the allocation, or of those among which one is chosen."""
    entry = config["variants"][variant]
    of = entry.get("pattern", "").partition(":")[2]
    candidates = [_plan(each, of) for each in entry.get("candidates", [entry])]
    return {"sparsity": sparsity, "allocation": candidates}


def _plan(entry: Mapping, of: str) -> dict:
    """Returns what `ecoflap.allocation.plan_from` reads."""
    keys = ("score", "granularity", "reduction", "budget", "max_sparsity", "strength")
    settings = {"method": entry.get("allocation", "uniform"), **_some(entry, *keys)}
    if "inside" in entry:
        return {**settings, "inside": _plan(entry["inside"], of)}
    return {**settings, "of": int(of)} if of else settings


def choose_plan(config: Mapping, *, model: str, variant: str, sparsity: str, **_: str) -> dict:
    """Returns how to allocate, prune, and measure on held-out samples."""
    held_out = _calibration(config, points.calibration_of(config, model, variant))
    pruning = prune_model(config, model=model, variant=variant, sparsity=sparsity)
    plans = allocate_sparsity(config, variant=variant, sparsity=sparsity)
    search = config["variants"][variant]["allocation"] == "search"
    return {**pruning, **plans, "calibration": held_out, "search": search}


def prune_model(config: Mapping, *, model: str, variant: str, sparsity: str, **_: str) -> dict:
    """Returns the criterion and how to walk the model."""
    entry, method = config["models"][model], config["variants"][variant]
    pruning = _some(method, "criterion", "group", "pattern", "ridge", "checkpoint")
    if points.needs_plan(method) and points.needs_samples(method):
        calibration = config["calibrations"][points.calibration_of(config, model, variant)]
        pruning |= _some(calibration, "tokens")
    return {
        "sparsity": sparsity,
        "pruning": pruning,
        "loading": _some(entry, "dtype", "offload", "blocks"),
        "batch_size": entry["batch_size"],
    }


def finetune_model(config: Mapping, *, model: str, variant: str, **_: str) -> dict:
    """Returns how to train, on what, and the samples per forward; weights are float32."""
    entry = config["finetuning"][points.finetuning_of(config, model, variant)]
    data = [{**part, "dataset": points.located(config, part["dataset"])} for part in entry["data"]]
    return {
        "finetuning": {**entry, "data": data},
        "loading": _some(config["models"][model], "blocks"),
        "batch_size": config["models"][model]["batch_size"],
    }


def evaluate_model(config: Mapping, *, model: str, suite: str, **_: str) -> dict:
    """Returns the tasks of a suite and how to load the model."""
    entry = config["models"][model]
    return {
        "tasks": points.tasks_of(config, suite),
        "loading": _some(entry, "dtype", "blocks"),
        **_some(entry.get("towers_from", {}), "towers"),
    }


def export_checkpoint(
    config: Mapping, *, model: str, variant: str, sparsity: str, **_: str
) -> dict:
    """Returns how to load the model, and what its card says of where it comes from."""
    entry = config["models"][model]
    method = config["variants"][points.pruned_as(config, variant)]
    tuning = points.finetuning_of(config, model, variant)
    pruned = points.pruned_model(config, model)
    told = {
        "model": _some(entry, "label", "source", "licence"),
        "variant": {**method, "label": config["variants"][variant]["label"]},
        "sparsity": sparsity,
    }
    if scores := points.scores_of(method):
        told["scores"] = {name: config["scores"][name] for name in scores}
    if scores or points.needs_samples(method):
        told["calibration"] = _calibration(config, points.calibration_of(config, pruned, variant))
    if tuning:
        told |= {"from": method["label"], "finetuning": config["finetuning"][tuning]}
    towers = _some(entry.get("towers_from", {}), "towers")
    return {"card": told, "loading": _some(entry, "dtype", "blocks"), **towers}


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
        choose_plan,
        prune_model,
        finetune_model,
        evaluate_model,
        export_checkpoint,
        loss_landscape,
    )
}
