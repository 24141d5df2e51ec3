"""Checks that the entries of a configuration fit each other. Needs no torch."""

from collections.abc import Iterator, Mapping

from ecoflap.allocation import exact
from ecoflap.data import mixes
from ecoflap.errors import AllocationError, message
from ecoflap.plugins import (
    FAMILIES,
    LOSS_SCORES,
    missing,
    reads_loss,
    unknown,
)
from ecoflap_pipeline.config import allocations, calibrations, experiments, finetuning
from ecoflap_pipeline.config.data import data_problems, name_problems
from ecoflap_pipeline.config.plugins import plugin_problems
from ecoflap_pipeline.points import (
    DENSE,
    calibration_of,
    pruned_as,
    pruned_model,
    scores_of,
    tasks_of,
)
from ecoflap_pipeline.readiness import environment_problems


def reference_problems(config: Mapping) -> Iterator[str]:
    """Yields what is wrong between the entries of a config whose sections are well formed.

    Args:
        config: The merged configuration, defaults filled in.
    """
    if taken := list(name_problems(config)):
        yield from taken  # all else would be about the other data set of that name
        return
    yield from missing("run", "experiment", config["run"], config["experiments"])
    yield from environment_problems(config)
    yield from plugin_problems(config)
    yield from data_problems(config)
    for name, model in config["models"].items():
        yield from _donor_problems(f"models.{name}", config, model)
        yield from _calibration_problems(f"models.{name}", config, model, model["calibration"])
    yield from finetuning.recipe_problems(config)
    for name, variant in config["variants"].items():
        tuned = "from" in variant
        check = finetuning.variant_problems if tuned else _variant_problems
        yield from check(f"variants.{name}", config, variant)
    for name, model in config["models"].items():
        yield from missing(f"models.{name}", "task", model.get("tasks", []), config["tasks"])
    holders: dict[str, str] = {}
    for name, tasks in config["suites"].items():
        for task in tasks:
            if holders.setdefault(task, name) != name:
                yield message(
                    f"suites.{name}: task '{task}' is in suite '{holders[task]}' too",
                    "each task in one suite",
                    "Remove it from one of them.",
                )
        yield from missing(f"suites.{name}", "task", tasks, config["tasks"])
        if name in config["tasks"]:
            yield message(
                f"suites.{name} is also the name of a task", "another name", "Rename the suite."
            )
    if any(name not in config["tasks"] for tasks in config["suites"].values() for name in tasks):
        return  # told above
    for name in config["experiments"]:
        yield from _experiment_problems(f"experiments.{name}", config, name)


def point_problems(
    config: Mapping, model: str, variant: str, sparsity: str, suite: str | None = None
) -> Iterator[str]:
    """Yields what is wrong with a point that no experiment may have, asked for as a file.

    Args:
        config: A configuration without problems.
        model: Its model.
        variant: Its variant; for the dense model `DENSE`.
        sparsity: Its sparsity, as in paths.
        suite: The suite or task it is evaluated on.
    """
    place = f"{model} {variant} {sparsity}"
    experiment = {
        "kind": "table",
        "models": [model],
        "variants": [variant] if variant != DENSE else [],
        "sparsities": [sparsity],
        "tasks": list(tasks_of(config, suite)) if suite else [],
    }
    yield from _experiment_problems(place, {**config, "experiments": {place: experiment}}, place)


def _donor_problems(place: str, config: Mapping, model: Mapping) -> Iterator[str]:
    if "towers_from" not in model:
        return
    donor, place = model["towers_from"]["model"], f"{place}.towers_from.model"
    if donor not in config["models"]:
        yield f"{place}: " + unknown("model", donor, config["models"])
    elif (other := pruned_model(config, donor)) != donor:
        yield message(
            f"{place}: '{donor}' has towers from elsewhere itself",
            "a model with towers of its own",
            f"Name {other}.",
        )


def _calibration_problems(
    place: str, config: Mapping, model: Mapping, calibration: str
) -> Iterator[str]:
    yield from missing(place, "calibration", [calibration], config["calibrations"])
    if calibration in config["calibrations"]:
        entry = config["calibrations"][calibration]
        yield from calibrations.model_problems(place, model, calibration, entry)


def _variant_problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    if "calibration" in variant:
        yield from missing(place, "calibration", [variant["calibration"]], config["calibrations"])
    yield from allocations.problems(place, config, variant)


def _experiment_problems(place: str, config: Mapping, name: str) -> Iterator[str]:
    experiment = config["experiments"][name]
    problems = [
        problem
        for key, kind in (
            ("models", "model"),
            ("variants", "variant"),
            ("tasks", "task"),
            ("scores", "score"),
        )
        for problem in missing(place, kind, experiment.get(key, []), config[key])
    ]
    variants = experiment.get("variants", [])
    yield from problems
    if problems:
        return
    pruned = [config["variants"].get(pruned_as(config, variant)) for variant in variants]
    if any(entry is None or "from" in entry for entry in pruned):
        return  # told with the variant
    yield from experiments.problems(place, config, name)
    for model_name in experiment["models"]:
        model = config["models"][model_name]
        for variant in variants:
            yield from finetuning.model_problems(config, model_name, variant)
        if "towers_from" in model:
            continue  # neither scored nor pruned
        for variant in experiment.get("variants", []):
            calibration = calibration_of(config, model_name, variant)
            yield from _calibration_problems(
                f"{place} with variant '{variant}'", config, model, calibration
            )
            entry = config["variants"][pruned_as(config, variant)]
            yield from calibrations.criterion_problems(place, config, calibration, entry)
            for score in scores_of(entry):
                yield from _score_problems(place, config, model, score, calibration)
        for score in experiment.get("scores", []):
            yield from _score_problems(place, config, model, score, model["calibration"])
        if experiment["kind"] == "loss-landscape":
            yield from _sample_problems(place, config, experiment, model, model["calibration"])
    for variant in experiment.get("variants", []):
        for sparsity in experiment["sparsities"]:
            yield from _sparsity_problems(
                f"{place}, variant '{variant}'", config, variant, sparsity
            )


def _score_problems(
    place: str, config: Mapping, model: Mapping, score: str, calibration: str
) -> Iterator[str]:
    if score in config["scores"]:
        entry = config["scores"][score]
        yield from _sample_problems(f"{place}: score '{score}'", config, entry, model, calibration)


def _sample_problems(
    place: str, config: Mapping, entry: Mapping, model: Mapping, calibration: str
) -> Iterator[str]:
    """Checks a score, or the landscape of a loss."""
    if calibration not in config["calibrations"]:
        return  # told elsewhere
    wanted, size = entry["samples"], entry["batch_size"]
    stored = mixes.n_samples(config["calibrations"][calibration])
    on_loss = reads_loss(entry.get("estimator", LOSS_SCORES[0]))
    contrastive = on_loss and FAMILIES[model["family"]].contrastive
    if contrastive and (size == 1 or wanted % size == 1):
        yield message(
            f"{place} has a batch of one sample ({wanted} in batches of {size})",
            "batches of at least two: the loss compares samples with each other",
            "Choose another batch_size.",
        )
    if wanted > stored:
        yield message(
            f"{place} wants {wanted} samples of '{calibration}'",
            f"at most {stored}",
            "Raise the samples of the calibration set or lower these.",
        )


def _sparsity_problems(place: str, config: Mapping, variant: str, sparsity: str) -> Iterator[str]:
    try:
        p = exact(sparsity)
        entry = config["variants"][pruned_as(config, variant)]
        if p == 0:
            yield message(f"{place}: sparsity {sparsity}", "above 0", "The dense row is implied.")
        yield from allocations.sparsity_problems(place, entry, sparsity)
    except AllocationError as error:
        yield f"{place}: {error}"
