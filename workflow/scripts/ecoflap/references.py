"""Checks that the entries of a configuration fit each other. Needs no torch."""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from ecoflap import checks_experiments, checks_finetuning
from ecoflap.allocation import METHODS, exact
from ecoflap.checks_data import data_problems
from ecoflap.errors import AllocationError, message
from ecoflap.readiness import environment_problems
from ecoflap.registry import (
    CRITERIA,
    FAMILIES,
    IMPORTED,
    LOSS_SCORES,
    SCORES,
    WHOLE_MODEL,
    missing,
    unknown,
)
from ecoflap.targets import (
    DENSE,
    calibration_of,
    is_auto,
    max_sparsity,
    pruned_as,
    tasks_of,
)


def reference_problems(config: Mapping) -> Iterator[str]:
    """Yields what is wrong between the entries of a config whose sections are well formed.

    Args:
        config: The merged configuration, defaults filled in.
    """
    yield from missing("run", "experiment", config["run"], config["experiments"])
    yield from environment_problems(config)
    yield from data_problems(config)
    for name, model in config["models"].items():
        if model["family"] not in FAMILIES:
            yield f"models.{name}: " + unknown("model family", model["family"], FAMILIES)
            return
        yield from _donor_problems(f"models.{name}", config, model)
        yield from _calibration_problems(f"models.{name}", config, model, model["calibration"])
    for name, score in config["scores"].items():
        if score["estimator"] not in SCORES:
            yield f"scores.{name}: " + unknown("estimator", score["estimator"], SCORES)
        settings = {"draws", "epsilon", "shards"} & set(score)
        if settings and score["estimator"] != "zeroth":
            yield message(
                f"scores.{name}: {', '.join(sorted(settings))} with {score['estimator']}",
                "draws, epsilon and shards with zeroth only",
                "Remove the key.",
            )
    yield from checks_finetuning.recipe_problems(config)
    for name, variant in config["variants"].items():
        tuned = "from" in variant
        check = checks_finetuning.variant_problems if tuned else _variant_problems
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
    donor = model.get("vision_from")
    if donor is None:
        return
    if donor not in config["models"]:
        yield f"{place}.vision_from: " + unknown("model", donor, config["models"])
    elif "vision_from" in config["models"][donor]:
        yield message(
            f"{place}.vision_from: '{donor}' has its vision tower from elsewhere itself",
            "a model with a tower of its own",
            f"Name {config['models'][donor]['vision_from']}.",
        )


def _calibration_problems(
    place: str, config: Mapping, model: Mapping, calibration: str
) -> Iterator[str]:
    yield from missing(place, "calibration", [calibration], config["calibrations"])
    if calibration in config["calibrations"]:
        seen = config["calibrations"][calibration]["format"]
        formats = FAMILIES[model["family"]].formats
        if seen not in formats:
            yield message(
                f"{place}: calibration '{calibration}' has the format {seen}",
                f"{', '.join(formats)} for the family {model['family']}",
                "Choose another calibration set.",
            )


def _variant_problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    criteria = [*CRITERIA, *WHOLE_MODEL]
    if variant["criterion"] not in criteria:
        yield f"{place}: " + unknown("criterion", variant["criterion"], criteria)
    if "group" in variant and variant["criterion"] not in ("wanda", "ria"):
        yield message(f"{place}: group", "group with the criterion wanda or ria", "Remove group.")
    if "score" in variant:
        yield from missing(place, "score", [variant["score"]], config["scores"])
    if "calibration" in variant:
        yield from missing(place, "calibration", [variant["calibration"]], config["calibrations"])
    yield from _allocation_problems(place, config, variant)
    imported = variant["criterion"] == IMPORTED
    if imported != ("checkpoint" in variant):
        yield message(
            f"{place}: {'no' if imported else 'a'} checkpoint with {variant['criterion']}",
            f"a checkpoint with the criterion {IMPORTED}, and only there",
            "Add or remove the key checkpoint.",
        )
    further = set(variant) - {"label", "criterion", "calibration", "checkpoint"}
    if variant["criterion"] in WHOLE_MODEL and further:
        yield message(
            f"{place}: {variant['criterion']} with {', '.join(sorted(further))}",
            "label, criterion and calibration only",
            "Remove the others: they would decide nothing.",
        )


def _allocation_problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    allocation = variant.get("allocation", "uniform")
    if allocation not in METHODS:
        yield f"{place}: " + unknown("allocation", allocation, METHODS)
        return
    method = METHODS[allocation]
    if method.scored != ("score" in variant):
        scored = [name for name, other in METHODS.items() if other.scored]
        yield message(
            f"{place}: allocation {allocation} with{'' if 'score' in variant else 'out'} a score",
            f"a score with the allocations {', '.join(scored)}, and only there",
            "Add or remove the key score.",
        )
    estimator = config["scores"].get(variant.get("score"), {}).get("estimator")
    if method.estimators and estimator not in (None, *method.estimators):
        yield message(
            f"{place}: allocation {allocation} with the estimator {estimator}",
            f"a score with the estimator {' or '.join(method.estimators)}",
            "Choose another score or allocation.",
        )
    for key, used in (
        ("max_sparsity", "bounded"),
        ("granularity", "grouped"),
        ("reduction", "reduced"),
    ):
        if key in variant and not getattr(method, used):
            allowed = [name for name, other in METHODS.items() if getattr(other, used)]
            yield message(
                f"{place}: {key} with the allocation {allocation}",
                f"{key} with {', '.join(allowed)}",
                f"Remove {key}.",
            )


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
    seeded, variants = experiment.get("seeds", {}), experiment.get("variants", [])
    problems += missing(f"{place}.seeds", "variant of this experiment", seeded, variants)
    yield from problems
    if problems:
        return
    pruned = [config["variants"].get(pruned_as(config, variant)) for variant in variants]
    if any(entry is None or "from" in entry for entry in pruned):
        return  # told with the variant
    yield from checks_experiments.problems(place, config, name)
    for model_name in experiment["models"]:
        model = config["models"][model_name]
        for variant in variants:
            yield from checks_finetuning.model_problems(config, model_name, variant)
        if "vision_from" in model:
            continue  # neither scored nor pruned
        for variant in experiment.get("variants", []):
            calibration = calibration_of(config, model_name, variant)
            yield from _calibration_problems(
                f"{place} with variant '{variant}'", config, model, calibration
            )
            score = config["variants"][pruned_as(config, variant)].get("score")
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
    place: str, config: Mapping, model: Mapping, score: str | None, calibration: str
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
    stored = config["calibrations"][calibration]["samples"]
    on_loss = entry.get("estimator", LOSS_SCORES[0]) in LOSS_SCORES
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
        yield from _pattern_problems(place, entry, p)
        bounded = "max_sparsity" in entry and not is_auto(entry)
        if bounded and exact(max_sparsity(entry, sparsity)) < p:
            yield message(
                f"{place}: max_sparsity (p_max) {entry['max_sparsity']} is below {sparsity}",
                f"at least {sparsity}, or a margin such as +0.1",
                "Raise max_sparsity of the variant.",
            )
    except AllocationError as error:
        yield f"{place}: {error}"


def _pattern_problems(place: str, variant: Mapping, sparsity: Fraction) -> Iterator[str]:
    kept, colon, of = variant.get("pattern", "").partition(":")
    if not colon:
        return
    if kept != "n" and int(kept) >= int(of):
        yield message(
            f"{place}: the pattern {variant['pattern']} removes nothing",
            f"N:{of} with N below {of}",
            "Correct the pattern of the variant.",
        )
        return
    share = (1 - sparsity) * int(of)  # of each M weights, what stays
    uniform = variant.get("allocation", "uniform") == "uniform"
    if (kept != "n" or uniform) and share != (int(kept) if kept.isdecimal() else round(share)):
        yield message(
            f"{place}: sparsity {float(sparsity)} with the pattern {variant['pattern']}",
            f"a sparsity of 1 - N/{of}",
            "Correct the sparsity of the experiment or the pattern of the variant.",
        )
    if kept != "n" and not uniform:
        yield message(
            f"{place}: allocation {variant['allocation']} with the pattern {variant['pattern']}",
            f"n:{of}, so that each group gets an N of its own",
            f"Set pattern: n:{of}, or allocation: uniform.",
        )
