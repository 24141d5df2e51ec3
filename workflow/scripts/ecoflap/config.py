"""Checks the whole configuration before any job starts. Needs no torch."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import yaml

from ecoflap.allocation import exact
from ecoflap.errors import AllocationError, ConfigError, message
from ecoflap.registry import DATASETS, FAMILIES, suggestion, unknown
from ecoflap.targets import DENSE, calibration_of, max_sparsity

SECTIONS = (
    "models",
    "calibrations",
    "scores",
    "variants",
    "tasks",
    "suites",
    "experiments",
    "plotting",
)
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def check(config: dict, schemas: Path) -> None:
    """Fills defaults in and checks everything that can be checked before a job starts.

    Args:
        config: The merged configuration; changed in place.
        schemas: Folder with one schema per section.

    Raises:
        ConfigError: naming all problems at once.
    """
    problems = list(_schema_problems("config", config, _schema(schemas, "config")))
    for section in SECTIONS:
        content = config.get(section)
        if not isinstance(content, dict) or not content:
            problems.append(
                message(
                    f"config: section '{section}' is missing or empty",
                    "a mapping with at least one entry",
                    f"See config/{section}.yaml.",
                )
            )
            continue
        problems += _schema_problems(section, content, _schema(schemas, section))
        if section != "plotting":
            problems += _id_problems(section, content)
    if not problems:
        problems += _reference_problems(config)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"the configuration has {len(set(problems))} problem(s):\n{listed}")


def _schema(folder: Path, section: str) -> dict:
    return yaml.safe_load((folder / f"{section}.schema.yaml").read_text())


def _schema_problems(section: str, content: Mapping, schema: dict) -> Iterator[str]:
    _fill_defaults(content, schema)
    for error in jsonschema.Draft202012Validator(schema).iter_errors(content):
        place = ".".join([section, *(str(part) for part in error.absolute_path)])
        yield _explain(place, error)


def _fill_defaults(content: object, schema: Mapping) -> None:
    if not isinstance(content, dict):
        return
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            content.setdefault(key, part["default"])
    entries = schema.get("additionalProperties")
    if isinstance(entries, dict):
        for entry in content.values():
            _fill_defaults(entry, entries)


def _explain(place: str, error: jsonschema.ValidationError) -> str:
    """Turns a schema violation into value, allowed, remedy."""
    schema, seen = error.schema, error.instance
    about = schema.get("description", "")
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        extra = [key for key in seen if key not in known]
        remedy = " ".join(filter(None, (suggestion(key, known) for key in extra)))
        return message(
            f"{place}: unknown key {', '.join(repr(key) for key in extra)}",
            ", ".join(known),
            remedy or "Remove it.",
        )
    if error.validator == "enum":
        allowed = ", ".join(map(str, schema["enum"]))
        return message(
            f"{place}: {seen!r}", allowed, suggestion(seen, schema["enum"]) or "Choose one."
        )
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in seen]
        return message(f"{place}: no {', '.join(missing)}", about or "all keys", "Add the key.")
    if error.validator in ("minItems", "uniqueItems"):
        rule = "at least one entry" if error.validator == "minItems" else "each entry once"
        return message(f"{place}: {seen!r}", rule, about or "Correct the list.")
    limit = error.validator_value
    if error.validator == "pattern":
        allowed = about or f"text of the form {limit}"
        return message(f"{place}: {seen!r}", allowed, f"It must match {limit}.")
    allowed = about if isinstance(limit, list) else f"{error.validator} {limit}"
    return message(f"{place}: {seen!r}", allowed, about or "Correct the value.")


def _id_problems(section: str, content: Mapping) -> Iterator[str]:
    for name in content:
        if not ID.fullmatch(str(name)):
            yield message(
                f"{section}: the name {name!r} cannot be part of a path",
                "lower-case letters and digits, separated by single hyphens",
                "Rename the entry.",
            )
    if section == "variants" and DENSE in content:
        yield message(
            f"variants: '{DENSE}' is the unpruned model", "any other name", "Rename the entry."
        )


def _reference_problems(config: Mapping) -> Iterator[str]:
    yield from _missing("run", "experiment", config["run"], config["experiments"])
    for name in config["data_folders"]:
        if name not in DATASETS:
            yield "data_folders: " + unknown("data set", name, DATASETS)
    for name, model in config["models"].items():
        yield from _calibration_problems(f"models.{name}", config, model, model["calibration"])
    for name, calibration in config["calibrations"].items():
        yield from _dataset_problems(f"calibrations.{name}", calibration["dataset"])
        if calibration["format"] == "text-windows" and "window" not in calibration:
            yield message(
                f"calibrations.{name}: no window", "tokens per window", "Add for example 2048."
            )
        yield from _leaks(name, calibration["dataset"], config["tasks"])
    for name, score in config["scores"].items():
        settings = {"draws", "epsilon"} & set(score)
        if settings and score["estimator"] != "zeroth":
            yield message(
                f"scores.{name}: {', '.join(sorted(settings))} with {score['estimator']}",
                "draws and epsilon with zeroth only",
                "Remove the key.",
            )
    for name, variant in config["variants"].items():
        yield from _variant_problems(f"variants.{name}", config, variant)
    for name, task in config["tasks"].items():
        yield from _dataset_problems(f"tasks.{name}", task["dataset"])
    for name, tasks in config["suites"].items():
        yield from _missing(f"suites.{name}", "task", tasks, config["tasks"])
        if name in config["tasks"]:
            yield message(
                f"suites.{name} is also the name of a task", "another name", "Rename the suite."
            )
    for name, experiment in config["experiments"].items():
        yield from _experiment_problems(f"experiments.{name}", config, experiment)


def _missing(place: str, kind: str, names: list, known: Mapping) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{place}: " + unknown(kind, name, known)


def _calibration_problems(
    place: str, config: Mapping, model: Mapping, calibration: str
) -> Iterator[str]:
    yield from _missing(place, "calibration", [calibration], config["calibrations"])
    if calibration in config["calibrations"]:
        seen = config["calibrations"][calibration]["format"]
        formats = FAMILIES[model["family"]].formats
        if seen not in formats:
            yield message(
                f"{place}: calibration '{calibration}' has the format {seen}",
                f"{', '.join(formats)} for the family {model['family']}",
                "Choose another calibration set.",
            )


def _dataset_problems(place: str, dataset: Mapping) -> Iterator[str]:
    if dataset["name"] not in DATASETS:
        yield f"{place}: " + unknown("data set", dataset["name"], DATASETS)
        return
    module = DATASETS.get(dataset["name"])
    for key, known in (("split", module.SPLITS), ("view", module.VIEWS)):
        if dataset[key] not in known:
            yield f"{place}: " + unknown(f"{key} of {dataset['name']}", dataset[key], known)


def _leaks(name: str, dataset: Mapping, tasks: Mapping) -> Iterator[str]:
    for task_name, task in tasks.items():
        other = task["dataset"]
        if (other["name"], other["split"]) == (dataset["name"], dataset["split"]):
            yield message(
                f"calibrations.{name} draws from {dataset['name']}/{dataset['split']}, which "
                f"task '{task_name}' evaluates",
                "a split that no task evaluates",
                "Calibrate on a training or calibration split.",
            )


def _variant_problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    ecoflap = variant.get("allocation") == "ecoflap"
    if ecoflap != ("score" in variant):
        yield message(
            f"{place}: allocation {variant.get('allocation', 'uniform')} "
            + ("without a score" if ecoflap else "with a score"),
            "a score with the allocation ecoflap, and only there",
            "Add or remove the key score.",
        )
    if "score" in variant:
        yield from _missing(place, "score", [variant["score"]], config["scores"])
    if "calibration" in variant:
        yield from _missing(place, "calibration", [variant["calibration"]], config["calibrations"])
    for key in ("max_sparsity", "granularity", "reduction"):
        if key in variant and not ecoflap:
            yield message(
                f"{place}: {key} without the allocation ecoflap",
                "allocation: ecoflap",
                f"Remove {key}.",
            )
    if variant["criterion"] == "global-magnitude" and len(variant) > 2:
        yield message(
            f"{place}: global-magnitude with further keys",
            "label and criterion only",
            "Remove the others: the threshold of the whole model decides.",
        )


def _experiment_problems(place: str, config: Mapping, experiment: Mapping) -> Iterator[str]:
    problems = [
        problem
        for key, kind in (
            ("models", "model"),
            ("variants", "variant"),
            ("tasks", "task"),
            ("scores", "score"),
        )
        for problem in _missing(place, kind, experiment.get(key, []), config[key])
    ]
    yield from problems
    if problems:
        return
    models = [config["models"][name] for name in experiment["models"]]
    for model, name in zip(models, experiment["models"], strict=True):
        for task in experiment.get("tasks", []):
            kind, kinds = config["tasks"][task]["kind"], FAMILIES[model["family"]].tasks
            if kind not in kinds:
                yield message(
                    f"{place}: task '{task}' ({kind}) does not suit model '{name}'",
                    f"{', '.join(kinds)} for the family {model['family']}",
                    "Choose another task or model.",
                )
        for variant in experiment.get("variants", []):
            calibration = calibration_of(config, name, variant)
            yield from _calibration_problems(
                f"{place} with variant '{variant}'", config, model, calibration
            )
            yield from _score_problems(place, config, variant, calibration)
    for variant in experiment.get("variants", []):
        for sparsity in experiment["sparsities"]:
            yield from _sparsity_problems(
                f"{place}, variant '{variant}'", config, variant, sparsity
            )


def _score_problems(place: str, config: Mapping, variant: str, calibration: str) -> Iterator[str]:
    score = config["variants"][variant].get("score")
    if score not in config["scores"] or calibration not in config["calibrations"]:
        return
    wanted = config["scores"][score]["samples"]
    stored = config["calibrations"][calibration]["samples"]
    if wanted > stored:
        yield message(
            f"{place}: score '{score}' wants {wanted} samples of '{calibration}'",
            f"at most {stored}",
            "Raise the samples of the calibration set or lower those of the score.",
        )


def _sparsity_problems(place: str, config: Mapping, variant: str, sparsity: str) -> Iterator[str]:
    try:
        p = exact(sparsity)
        entry = config["variants"][variant]
        if p == 0:
            yield message(f"{place}: sparsity {sparsity}", "above 0", "The dense row is implied.")
        if entry.get("allocation") == "ecoflap" and exact(max_sparsity(entry, sparsity)) < p:
            yield message(
                f"{place}: max_sparsity (p_max) {entry['max_sparsity']} is below {sparsity}",
                f"at least {sparsity}, or a margin such as +0.1",
                "Raise max_sparsity of the variant.",
            )
    except AllocationError as error:
        yield f"{place}: {error}"
