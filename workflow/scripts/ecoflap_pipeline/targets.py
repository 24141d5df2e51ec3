"""Which artifacts an experiment, or one stage of it, needs. Needs no torch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from ecoflap.data import mixes
from ecoflap.plugins import FAMILIES, FROM_HUB, IMPORTED, WHOLE_MODEL

T = TypeVar("T")
DENSE = "dense"
DENSE_SPARSITY = "0.0"
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

DOWNLOAD = "results/downloads/{task}.json"
DATASET = "results/datasets/{name}/{split}/{view}.json"
OVERLAP = "results/overlaps/{name}/{split}/{view}.json"
SAMPLES = "results/calibration/{model}/{calibration}/seed{seed}/samples.safetensors"
SCORES = "results/scores/{model}/{calibration}/seed{seed}/{score}.parquet"
SCORE_COST = "results/scores/{model}/{calibration}/seed{seed}/{score}.cost.json"
SHARD = "results/scores/{model}/{calibration}/seed{seed}/{score}.shards/{shard}-of-{n}.parquet"
SHARD_COST = SHARD.replace(".parquet", ".cost.json")
PLAN = "results/allocations/{model}/{variant}/seed{seed}/{sparsity}.json"
CHOICE = "results/allocations/{model}/{variant}/seed{seed}/{sparsity}.choice.json"
CHANGES = "results/pruned/{model}/{variant}/seed{seed}/{sparsity}/changes.safetensors"
PRUNE_COST = "results/pruned/{model}/{variant}/seed{seed}/{sparsity}/cost.json"
LAYERS = "results/pruned/{model}/{variant}/seed{seed}/{sparsity}/layers.parquet"
EXPORT = "results/exports/{model}/{variant}/seed{seed}/{sparsity}"
FINETUNED = "results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/changes.safetensors"
CURVE = "results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/curve.parquet"
FINETUNE_COST = "results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/cost.json"
LANDSCAPE = "results/landscapes/{landscape}.parquet"
METRICS = "results/evaluation/{model}/{variant}/seed{seed}/{sparsity}/{suite}/metrics.json"


def beside(path: str, name: str) -> str:
    """Returns the path of another file in the folder of one."""
    return f"{path.rpartition('/')[0]}/{name}"


class Point(NamedTuple):
    """One model as it is evaluated."""

    model: str
    variant: str
    seed: int
    sparsity: str


def is_auto(variant: Mapping) -> bool:
    """Tells whether a variant's plan is chosen by the loss of pruned models."""
    return variant.get("allocation") == "auto"


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
    blind = ("magnitude", "global-magnitude", IMPORTED)
    return variant["criterion"] not in blind or is_auto(variant)


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

    A model with the vision tower of another is evaluated with what that other one lost; a
    fine-tuned variant is pruned as the one it comes from.
    """
    return list(
        dict.fromkeys(
            point._replace(
                model=config["models"][point.model].get("vision_from", point.model),
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


def plans(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the allocations of an experiment."""
    for point in changed_points(config, experiment):
        if needs_plan(config["variants"][point.variant]):
            yield PLAN.format(**point._asdict())


def pruned(config: Mapping, experiment: str, template: str = CHANGES) -> Iterator[str]:
    """Yields a file of each pruned model of an experiment."""
    for point in changed_points(config, experiment):
        yield template.format(**point._asdict())


def pruned_for_evaluation(
    config: Mapping, experiment: str, template: str = CHANGES
) -> Iterator[str]:
    """Yields a file of each pruned model that an experiment evaluates or fine-tunes."""
    if config["experiments"][experiment]["kind"] in OF_PRUNED:
        yield from pruned(config, experiment, template)


def finetuned(config: Mapping, experiment: str, template: str = FINETUNED) -> Iterator[str]:
    """Yields a file of each fine-tuned model of an experiment."""
    for point in points(config, experiment):
        if "finetune" in config["variants"][point.variant]:
            yield template.format(**point._asdict())


def curves(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the training curves of an experiment."""
    yield from finetuned(config, experiment, CURVE)


def choices(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the choices of a plan that an experiment's variants rest on."""
    for point in changed_points(config, experiment):
        if is_auto(config["variants"][point.variant]):
            yield CHOICE.format(**point._asdict())


def metrics(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the metrics of an experiment, the dense models first."""
    dense = [
        Point(model, DENSE, config["seeds"][0], DENSE_SPARSITY)
        for model in dense_models(config, experiment)
    ]
    for point in dense + points(config, experiment):
        for suite in suites_of(config, takes(config, experiment, point.model)):
            yield METRICS.format(**point._asdict(), suite=suite)


def metrics_of(config: Mapping, point: Point) -> list[str]:
    """Returns a pruned model's metrics in the selected experiments, in the others if in none."""
    having = [
        name
        for name, entry in config["experiments"].items()
        if entry["kind"] in EVALUATED and point in points(config, name)
    ]
    suites = [
        suite
        for name in [name for name in having if name in config["run"]] or having
        for suite in suites_of(config, takes(config, name, point.model))
    ]
    return [METRICS.format(**point._asdict(), suite=suite) for suite in dict.fromkeys(suites)]


def exports(config: Mapping, experiment: str, template: str = EXPORT) -> Iterator[str]:
    """Yields the exports of the pruned models that an experiment evaluates, main seed."""
    if config["experiments"][experiment]["kind"] in EVALUATED:
        for point in points(config, experiment):
            if point.seed == config["seeds"][0]:
                yield template.format(**point._asdict())


def models(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the names of the models that an experiment runs, those that give a tower too."""
    yield from dense_models(config, experiment)
    for point in changed_points(config, experiment):
        yield point.model


def task_names(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the tasks that an experiment evaluates."""
    for model in dense_models(config, experiment):
        yield from takes(config, experiment, model)


def drawn(config: Mapping, experiment: str) -> Iterator[Mapping]:
    """Yields what an experiment calibrates or fine-tunes with: entries with ``dataset``."""
    for path in samples(config, experiment):
        yield from mixes.parts_of(config["calibrations"][path.split("/")[3]])
    for point in points(config, experiment):
        if name := finetuning_of(config, point.model, point.variant):
            yield from config["finetuning"][name]["data"]


def datasets(config: Mapping, experiment: str) -> Iterator[tuple[str, str, str]]:
    """Yields name, split and view of each data set that an experiment reads."""
    tasks = (config["tasks"][name] for name in task_names(config, experiment))
    for entry in (*drawn(config, experiment), *tasks):
        if "dataset" in entry:
            yield tuple(entry["dataset"][key] for key in ("name", "split", "view"))


def reports(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the reports on data sets that are not built in."""
    for name, split, view in datasets(config, experiment):
        if name in config["datasets"]:
            yield DATASET.format(name=name, split=split, view=view)


def overlaps(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the reports that what an experiment draws from is not what its models are asked."""
    for entry in drawn(config, experiment):
        if entry["dataset"]["name"] in config["datasets"]:
            yield OVERLAP.format(**entry["dataset"])


def downloads(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields what must have been fetched before an experiment can run without network."""
    for model in models(config, experiment):
        yield f"results/models/{model}"
    yield from reports(config, experiment)
    for task in task_names(config, experiment):
        entry = config["tasks"][task]
        fetched = "dataset" not in entry or entry["dataset"]["name"] in FROM_HUB
        if fetched or "spice" in entry.get("metrics", []):
            yield DOWNLOAD.format(task=task)


def samples(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the calibration samples that an experiment reads."""
    entry = config["experiments"][experiment]
    for point in changed_points(config, experiment):
        variant = config["variants"][point.variant]
        pruned = entry["kind"] in OF_PRUNED and needs_samples(variant)
        if pruned or is_auto(variant) or scores_of(variant):
            calibration = calibration_of(config, point.model, point.variant)
            yield SAMPLES.format(**point._asdict(), calibration=calibration)
    if entry["kind"] == "loss-landscape":
        yield landscape_samples(config, experiment)
    for model in entry["models"] if "scores" in entry else []:
        for seed in seeds_of(config, experiment):
            calibration = config["models"][model]["calibration"]
            yield SAMPLES.format(model=model, calibration=calibration, seed=seed)


def landscape_samples(config: Mapping, experiment: str) -> str:
    """Returns the calibration samples whose loss a landscape shows: the first seed's."""
    (model,) = config["experiments"][experiment]["models"]
    calibration = config["models"][model]["calibration"]
    return SAMPLES.format(model=model, calibration=calibration, seed=config["seeds"][0])


def landscapes(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the loss landscape of an experiment."""
    if config["experiments"][experiment]["kind"] == "loss-landscape":
        yield LANDSCAPE.format(landscape=experiment)


def scores(config: Mapping, experiment: str, template: str = SCORES) -> Iterator[str]:
    """Yields a file of each score that an experiment or one of its variants reads."""
    for point in changed_points(config, experiment):
        for score in scores_of(config["variants"][point.variant]):
            calibration = calibration_of(config, point.model, point.variant)
            yield template.format(**point._asdict(), calibration=calibration, score=score)
    entry = config["experiments"][experiment]
    for model in entry["models"]:
        for score in entry.get("scores", []):
            for seed in seeds_of(config, experiment):
                calibration = config["models"][model]["calibration"]
                yield template.format(model=model, calibration=calibration, seed=seed, score=score)


def shards(config: Mapping, score: str, *, template: str = SHARD, **names: str) -> list[str]:
    """Returns a file of each job that a score is shared out to; none for one job.

    Args:
        config: The merged configuration.
        score: The score.
        template: ``SHARD`` or ``SHARD_COST``.
        **names: model, calibration and seed.
    """
    n = config["scores"][score].get("shards", 1)
    filled = {**names, "score": score, "n": n}
    return [template.format(**filled, shard=shard) for shard in range(n)] if n > 1 else []


def all_shards(config: Mapping, experiment: str) -> Iterator[str]:
    """Yields the shards of an experiment's scores."""
    for path in scores(config, experiment):
        _, _, model, calibration, seed, file = path.split("/")
        names = {"model": model, "calibration": calibration, "seed": seed.removeprefix("seed")}
        yield from shards(config, file.removesuffix(".parquet"), **names)


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
    table = config["experiments"][experiment]["kind"] in TABLES
    folder = "results/tables" if table else "results/figures"
    for suffix in ("csv", "md", "html", "tex") if table else ("csv", "pdf", "svg", "png"):
        yield f"{folder}/{experiment}.{suffix}"


def of_kind(config: Mapping, names: Iterable[str], *kinds: str) -> list[str]:
    """Returns the experiments among some names that are of some kinds."""
    return [name for name in names if config["experiments"][name]["kind"] in kinds]


def collect(config: Mapping, function: Callable[..., Iterator[T]], *arguments: str) -> list[T]:
    """Returns what all selected experiments need, each once."""
    files = (file for name in config["run"] for file in function(config, name, *arguments))
    return list(dict.fromkeys(files))


def made(config: Mapping) -> list[str]:
    """Returns one small artifact of each job that the selected experiments rest on."""
    found = [
        *(f"results/models/{name}" for name in collect(config, models)),
        *collect(config, reports),
        *collect(config, overlaps),
        *(beside(path, "cost.json") for path in collect(config, samples)),
        *collect(config, scores, SCORE_COST),
        *collect(config, choices),
        *collect(config, plans),
        *collect(config, pruned_for_evaluation, PRUNE_COST),
        *collect(config, finetuned, FINETUNE_COST),
        *(beside(path, "cost.json") for path in collect(config, metrics)),
        *collect(config, landscapes),
    ]
    return list(dict.fromkeys(found))


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


def jobs(config: Mapping, experiment: str) -> dict[str, int]:
    """Counts the jobs of each rule that an experiment needs when nothing has been made."""
    entry = config["experiments"][experiment]
    counts = {"prepare_model": len(set(models(config, experiment)))}
    for rule, function in (
        ("check_dataset", reports),
        ("check_overlap", overlaps),
        ("extract_calibration", samples),
        ("score_shard", all_shards),
        ("compute_scores", scores),
        ("choose_plan", choices),
        ("allocate_sparsity", plans),
        ("prune_model", pruned_for_evaluation),
        ("finetune_model", finetuned),
        ("evaluate_model", metrics),
        ("loss_landscape", landscapes),
    ):
        counts[rule] = len(set(function(config, experiment)))
    counts["make_table" if entry["kind"] in TABLES else "plot_figure"] = 1
    return {rule: count for rule, count in counts.items() if count}
