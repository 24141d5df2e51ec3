"""Which artifacts an experiment, or one stage of it, needs. Needs no torch."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from ecoflap.data import mixes
from ecoflap.plugins import FROM_HUB
from ecoflap_pipeline import paths
from ecoflap_pipeline.paths import Artifact
from ecoflap_pipeline.points import (
    Point,
    calibration_of,
    changed_points,
    dense,
    dense_models,
    finetuning_of,
    is_chosen,
    needs_plan,
    needs_samples,
    points,
    scores_of,
    seeds_of,
    suites_of,
    takes,
)

T = TypeVar("T")
FIGURES = (
    "tradeoff",
    "ablation",
    "sparsity-per-block",
    "score-scatter",
    "loss-landscape",
    "training-curve",
)
TABLES = ("table", "cost")
EVALUATED = (*TABLES, "tradeoff", "ablation")
OF_PRUNED = (*EVALUATED, "training-curve")  # what is made of pruned models; the others are not


def plans(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the allocations of an experiment."""
    for point in changed_points(config, experiment):
        if needs_plan(config["variants"][point.variant]):
            yield paths.PLAN.at(**point._asdict())


def pruned(config: Mapping, experiment: str, artifact: Artifact = paths.CHANGES) -> Iterator[str]:
    """Yields a file of each pruned model of an experiment."""
    for point in changed_points(config, experiment):
        yield artifact.at(**point._asdict())


def pruned_for_evaluation(
    config: Mapping, experiment: str, artifact: Artifact = paths.CHANGES
) -> Iterator[str]:
    """Yields a file of each pruned model that an experiment evaluates or fine-tunes."""
    if config["experiments"][experiment]["kind"] in OF_PRUNED:
        yield from pruned(config, experiment, artifact)


def finetuned(
    config: Mapping, experiment: str, artifact: Artifact = paths.FINETUNED
) -> Iterator[str]:
    """Yields a file of each fine-tuned model of an experiment."""
    for point in points(config, experiment):
        if "finetune" in config["variants"][point.variant]:
            yield artifact.at(**point._asdict())


def curves(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the training curves of an experiment."""
    yield from finetuned(config, experiment, paths.CURVE)


def choices(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the choices of a plan that an experiment's variants rest on."""
    for point in changed_points(config, experiment):
        if is_chosen(config["variants"][point.variant]):
            yield paths.CHOICE.at(**point._asdict())


def evaluated(config: Mapping, experiment: str) -> list[tuple[Point, str]]:
    """Lists the models of an experiment with each suite that they are asked, dense ones first."""
    unpruned = [dense(config, model) for model in dense_models(config, experiment)]
    pairs = (
        (point, suite)
        for point in unpruned + points(config, experiment)
        for suite in suites_of(config, takes(config, experiment, point.model))
    )
    return list(dict.fromkeys(pairs))


def metrics(config: Mapping, experiment: str, artifact: Artifact = paths.METRICS) -> Iterator[str]:
    """Yields a file of each evaluation of an experiment."""
    for point, suite in evaluated(config, experiment):
        yield artifact.at(**point._asdict(), suite=suite)


def suites_asked(config: Mapping, point: Point) -> list[str]:
    """Returns a pruned model's suites in the selected experiments, in the others if in none."""
    having = [
        name
        for name, entry in config["experiments"].items()
        if entry["kind"] in EVALUATED and point in points(config, name)
    ]
    suites = (
        suite
        for name in [name for name in having if name in config["run"]] or having
        for suite in suites_of(config, takes(config, name, point.model))
    )
    return list(dict.fromkeys(suites))


def exports(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the exports of the pruned models that an experiment evaluates, main seed."""
    if config["experiments"][experiment]["kind"] in EVALUATED:
        for point in points(config, experiment):
            if point.seed == config["seeds"][0]:
                yield paths.EXPORT.at(**point._asdict())


def models(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the names of the models that an experiment runs, those that give a tower too."""
    yield from dense_models(config, experiment)
    for point in changed_points(config, experiment):
        yield point.model


def model_folders(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the dense checkpoints of an experiment."""
    for model in models(config, experiment):
        yield paths.MODEL.at(model=model)


def task_names(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the tasks that an experiment evaluates."""
    for model in dense_models(config, experiment):
        yield from takes(config, experiment, model)


def drawn(config: Mapping, experiment: str) -> Iterator[Mapping]:
    """Yields what an experiment calibrates or fine-tunes with: entries with ``dataset``."""
    for names in calibrated(config, experiment):
        yield from mixes.parts_of(config["calibrations"][names["calibration"]])
    for point in points(config, experiment):
        if name := finetuning_of(config, point.model, point.variant):
            yield from config["finetuning"][name]["data"]


def of_dataset(place: Mapping) -> dict[str, str]:
    """Returns the wildcards of what is made of a split and view of a data set."""
    return {"dataset": place["name"], "split": place["split"], "view": place["view"]}


def datasets(config: Mapping, experiment: str) -> Iterator[tuple[str, str, str]]:
    """Yields name, split and view of each data set that an experiment reads."""
    tasks = (config["tasks"][name] for name in task_names(config, experiment))
    for entry in (*drawn(config, experiment), *tasks):
        if "dataset" in entry:
            place = entry["dataset"]
            yield place["name"], place["split"], place["view"]


def reports(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the reports on data sets that are not built in."""
    for name, split, view in datasets(config, experiment):
        if name in config["datasets"]:
            yield paths.DATASET.at(dataset=name, split=split, view=view)


def overlaps(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the reports that what an experiment draws from is not what its models are asked."""
    for entry in drawn(config, experiment):
        if entry["dataset"]["name"] in config["datasets"]:
            yield paths.OVERLAP.at(**of_dataset(entry["dataset"]))


def downloads(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields what must have been fetched before an experiment can run without network."""
    yield from model_folders(config, experiment)
    yield from reports(config, experiment)
    for task in task_names(config, experiment):
        entry = config["tasks"][task]
        fetched = "dataset" not in entry or entry["dataset"]["name"] in FROM_HUB
        if fetched or "spice" in entry.get("metrics", []):
            yield paths.DOWNLOAD.at(task=task)


def calibrated(config: Mapping, experiment: str) -> Iterator[dict]:
    """Yields model, calibration and seed of the calibration samples that an experiment reads."""
    entry = config["experiments"][experiment]
    for point in changed_points(config, experiment):
        variant = config["variants"][point.variant]
        pruned = entry["kind"] in OF_PRUNED and needs_samples(variant)
        if pruned or is_chosen(variant) or scores_of(variant):
            yield of_point(config, point)
    if entry["kind"] == "loss-landscape":
        yield of_landscape(config, experiment)
    for model in entry["models"] if "scores" in entry else []:
        for seed in seeds_of(config, experiment):
            yield of_model(config, model, seed)


def of_point(config: Mapping, point: Point) -> dict:
    """Returns the wildcards of what a point is pruned with."""
    calibration = calibration_of(config, point.model, point.variant)
    return {**point._asdict(), "calibration": calibration}


def of_model(config: Mapping, model: str, seed: int) -> dict:
    """Returns the wildcards of the calibration samples that a model has by itself."""
    return {"model": model, "calibration": config["models"][model]["calibration"], "seed": seed}


def of_landscape(config: Mapping, experiment: str) -> dict:
    """Returns the wildcards of the samples whose loss a landscape shows: the first seed's."""
    (model,) = config["experiments"][experiment]["models"]
    return of_model(config, model, config["seeds"][0])


def samples(config: Mapping, experiment: str, artifact: Artifact = paths.SAMPLES) -> Iterator[str]:
    """Yields a file of each set of calibration samples that an experiment reads."""
    for names in calibrated(config, experiment):
        yield artifact.at(**names)


def landscapes(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the loss landscape of an experiment."""
    if config["experiments"][experiment]["kind"] == "loss-landscape":
        yield paths.LANDSCAPE.at(landscape=experiment)


def scored(config: Mapping, experiment: str) -> Iterator[dict]:
    """Yields the wildcards of each score that an experiment or one of its variants reads."""
    for point in changed_points(config, experiment):
        for score in scores_of(config["variants"][point.variant]):
            yield {**of_point(config, point), "score": score}
    entry = config["experiments"][experiment]
    for model in entry["models"]:
        for score in entry.get("scores", []):
            for seed in seeds_of(config, experiment):
                yield {**of_model(config, model, seed), "score": score}


def scores(config: Mapping, experiment: str, artifact: Artifact = paths.SCORES) -> Iterator[str]:
    """Yields a file of each score that an experiment or one of its variants reads."""
    for names in scored(config, experiment):
        yield artifact.at(**names)


def shards(
    config: Mapping, names: Mapping[str, str], artifact: Artifact = paths.SHARD
) -> list[str]:
    """Returns a file of each job that a score is shared out to; none for one job.

    Args:
        config: The merged configuration.
        names: The wildcards of the score.
        artifact: ``SHARD`` or ``SHARD_COST``.
    """
    n = config["scores"][names["score"]].get("shards", 1)
    return [artifact.at(**names, shard=shard, shards=n) for shard in range(n)] if n > 1 else []


def all_shards(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the shards of an experiment's scores."""
    for names in scored(config, experiment):
        yield from shards(config, names)


def figure_inputs(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields what a figure is drawn from."""
    sources = {
        "tradeoff": metrics,
        "ablation": metrics,
        "sparsity-per-block": plans,
        "score-scatter": scores,
        "loss-landscape": landscapes,
        "training-curve": curves,
    }
    return sources[config["experiments"][experiment]["kind"]](config, experiment)


def outputs(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the files that an experiment ends in."""
    if config["experiments"][experiment]["kind"] in TABLES:
        yield from (paths.table(form).format(table=experiment) for form in paths.TABLE_FORMS)
    else:
        yield from (paths.figure(form).format(figure=experiment) for form in paths.FIGURE_FORMS)


def of_kind(config: Mapping, names: Iterable[str], *kinds: str) -> list[str]:
    """Returns the experiments among some names that are of some kinds."""
    return [name for name in names if config["experiments"][name]["kind"] in kinds]


def collect(config: Mapping, function: Callable[..., Iterator[T]], *arguments: str) -> list[T]:
    """Returns what all selected experiments need, each once."""
    files = (file for name in config["run"] for file in function(config, name, *arguments))
    return list(dict.fromkeys(files))


def labels(config: Mapping, experiment: str) -> dict[str, dict[str, str]]:
    """Returns the names that a reader sees, for what an experiment shows."""
    entry = config["experiments"][experiment]
    columns = [key.partition("/")[0] for key in entry.get("published_columns", {})]
    shown = {
        "models": dense_models(config, experiment),
        "variants": [*entry.get("variants", []), *entry.get("published_rows", {})],
        "tasks": [*entry.get("tasks", []), *columns],
    }
    return {
        kind: {name: config[kind][name]["label"] for name in names if name in config[kind]}
        for kind, names in shown.items()
    }


# A small file of each job of a rule, of those that an experiment rests on.
STAGES = {
    "prepare_model": model_folders,
    "check_dataset": reports,
    "check_overlap": overlaps,
    "extract_calibration": functools.partial(samples, artifact=paths.SAMPLES_COST),
    "score_shard": all_shards,
    "compute_scores": functools.partial(scores, artifact=paths.SCORES_COST),
    "choose_plan": choices,
    "allocate_sparsity": plans,
    "prune_model": functools.partial(pruned_for_evaluation, artifact=paths.PRUNE_COST),
    "finetune_model": functools.partial(finetuned, artifact=paths.FINETUNE_COST),
    "evaluate_model": functools.partial(metrics, artifact=paths.EVALUATION_COST),
    "loss_landscape": landscapes,
}
DELETED = ("score_shard",)  # when a later job has read it


def made(config: Mapping) -> list[str]:
    """Returns one small artifact of each job that the selected experiments rest on."""
    kept = (function for rule, function in STAGES.items() if rule not in DELETED)
    return list(dict.fromkeys(file for function in kept for file in collect(config, function)))


def jobs(config: Mapping, experiment: str) -> dict[str, int]:
    """Counts the jobs of each rule that an experiment needs when nothing has been made."""
    counts = {rule: len(set(function(config, experiment))) for rule, function in STAGES.items()}
    entry = config["experiments"][experiment]
    counts["make_table" if entry["kind"] in TABLES else "plot_figure"] = 1
    return {rule: count for rule, count in counts.items() if count}
