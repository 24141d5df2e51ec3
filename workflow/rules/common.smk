# Loads and checks the configuration; input and params functions of the rules.
import functools
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

SCRIPTS = Path(workflow.basedir, "workflow", "scripts")
sys.path.insert(0, str(SCRIPTS))

from ecoflap import config as configuration
from ecoflap import costs, published, references, runtime, settings, targets
from ecoflap.errors import ConfigError
from ecoflap.registry import ADAPTERS, CRITERIA, DATASETS, LAYOUTS, SCORES

try:
    configuration.check(
        config,
        Path(workflow.basedir, "workflow", "schemas"),
        workflow.configfiles,
        workflow.config_settings.config,
    )
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if Path("results").exists() and not os.access("results", os.W_OK):
    raise WorkflowError(
        "the folder results may not be written. Allowed: a folder of your own, on a disk "
        "that is not read-only. Mend its rights, or run in another copy of the repository."
    )

runtime.export_library()
PRUNED = [name for name, entry in config["variants"].items() if "from" not in entry]
TUNED = [name for name in config["variants"] if name not in PRUNED]
GPUS = 0 if config["device"] == "cpu" else 1


wildcard_constraints:
    model="|".join(config["models"]),
    calibration="|".join(config["calibrations"]),
    dataset="|".join(config["datasets"]),
    split="[^/]+",
    view="[^/]+",
    score="|".join(config["scores"]),
    variant="|".join([targets.DENSE, *config["variants"]]),
    suite="|".join([*config["suites"], *config["tasks"]]),
    table="|".join(targets.of_kind(config, config["experiments"], *targets.TABLES))
    or "none",
    figure="|".join(targets.of_kind(config, config["experiments"], *targets.FIGURES))
    or "none",
    landscape="|".join(
        targets.of_kind(config, config["experiments"], "loss-landscape")
    )
    or "none",
    seed="[0-9]+",
    sparsity="0[.](0|[0-9]*[1-9])",


def growing(first):
    """Memory or time of which a job gets more whenever it is submitted again."""

    def of(wildcards, attempt):
        return first * attempt

    return of


@functools.cache
def code_of(script, plugins):
    return runtime.code_of(SCRIPTS, script, plugins)


def code(script, plugins=()):
    """A rule's script, with the hash of all that it imports and of the plug-ins it will load."""
    return code_of(script, tuple(plugins))


def read_by(rule):
    """What a rule reads of the configuration, by its wildcards."""

    def of(wildcards):
        return settings.RULES[rule](config, **dict(wildcards.items()))

    return of


def point(wildcards):
    """What an artifact is of; in params, so that a cache never takes one for another."""
    return {
        key: int(value) if key == "seed" else value for key, value in wildcards.items()
    }


def adapter(wildcards):
    return ADAPTERS.module_name(config["models"][wildcards.model]["family"])


def dataset(entry):
    name = entry["dataset"]["name"]
    if name in DATASETS:
        return DATASETS.module_name(name)
    return LAYOUTS.module_name(config["datasets"][name]["layout"])


@functools.cache
def refuse_unfit(model, variant, sparsity, suite=None):
    """A file that is asked for by its path may be of a point that no experiment may have."""
    problems = references.point_problems(config, model, variant, sparsity, suite)
    for problem in problems:
        raise WorkflowError(problem)


def variant(wildcards):
    return config["variants"][wildcards.variant]


def calibration_values(wildcards):
    """Wildcards with the calibration set and score of the variant, to fill in paths."""
    name = targets.calibration_of(config, wildcards.model, wildcards.variant)
    return {
        **dict(wildcards.items()),
        "calibration": name,
        "score": variant(wildcards).get("score"),
    }


# check_dataset
def report_of(entry):
    """The report on a data set, or nothing if it is built in."""
    used = entry.get("dataset", {})
    return (
        targets.DATASET.format(**used) if used.get("name") in config["datasets"] else []
    )


def dataset_code(wildcards):
    layout = config["datasets"][wildcards.dataset]["layout"]
    return code("check_dataset.py", [LAYOUTS.module_name(layout)])


# check_overlap
def overlap_of(entry):
    """Its report, as old as can be: a task that is added later asks for no new samples."""
    path = report_of(entry) and targets.OVERLAP.format(**entry["dataset"])
    return ancient(path) if path else []


def overlap_code(wildcards):
    read = settings.check_overlap(config, **dict(wildcards.items()))
    readers = [
        (
            LAYOUTS.module_name(entry["layout"])
            if "layout" in entry
            else DATASETS.module_name(entry["name"])
        )
        for entry in (read["drawn"], *read["evaluated"].values())
    ]
    return code("check_overlap.py", readers)


# prepare_model
def model_files(wildcards):
    """The files of a local checkpoint, so that new weights are noticed."""
    folder = config["models"][wildcards.model]["source"].get("folder")
    return sorted(map(str, Path(folder).glob("*.*"))) if folder else []


def vision_donor(wildcards):
    """The model whose vision tower this one has."""
    donor = config["models"][wildcards.model].get("vision_from")
    return f"results/models/{donor}" if donor else []


def changed(wildcards):
    """Wildcards with the model that was pruned."""
    values = dict(wildcards.items())
    donor = config["models"][wildcards.model].get("vision_from", wildcards.model)
    return {**values, "model": donor}


def prepare_code(wildcards):
    return code("prepare_model.py", [adapter(wildcards)])


# extract_calibration
def calibration_report(wildcards):
    return report_of(config["calibrations"][wildcards.calibration])


def calibration_overlap(wildcards):
    return overlap_of(config["calibrations"][wildcards.calibration])


def calibration_code(wildcards):
    entry = config["calibrations"][wildcards.calibration]
    return code("extract_calibration.py", [adapter(wildcards), dataset(entry)])


# compute_scores and score_shard
def shards_of(wildcards, template):
    names = dict(wildcards.items())
    return targets.shards(config, names.pop("score"), template=template, **names)


def score_shards(wildcards):
    return shards_of(wildcards, targets.SHARD)


def score_shard_costs(wildcards):
    return shards_of(wildcards, targets.SHARD_COST)


def score_gpus(wildcards):
    """None for the job that only gathers."""
    return 0 if score_shards(wildcards) else GPUS


def score_code(wildcards):
    estimator = config["scores"][wildcards.score]["estimator"]
    return code(
        "compute_scores.py", [adapter(wildcards), SCORES.module_name(estimator)]
    )


# allocate_sparsity
def allocation_scores(wildcards):
    values = calibration_values(wildcards)
    return targets.SCORES.format(**values) if values["score"] else []


def allocation_margins(wildcards):
    return targets.MARGINS if targets.is_auto(variant(wildcards)) else []


# choose_max_sparsity
def margins_code(wildcards):
    name = targets.calibration_of(config, wildcards.model, wildcards.variant)
    plugins = [
        adapter(wildcards),
        CRITERIA.module_name(variant(wildcards)["criterion"]),
        dataset(config["calibrations"][name]),
    ]
    return code("choose_max_sparsity.py", plugins)


# prune_model
def prune_plan(wildcards):
    refuse_unfit(wildcards.model, wildcards.variant, wildcards.sparsity)
    return targets.PLAN if targets.needs_plan(variant(wildcards)) else []


def prune_samples(wildcards):
    needed = targets.needs_samples(variant(wildcards))
    return targets.SAMPLES.format(**calibration_values(wildcards)) if needed else []


def prune_checkpoint(wildcards):
    return variant(wildcards).get("checkpoint", {}).get("file", [])


def prune_code(wildcards):
    criterion = variant(wildcards)["criterion"]
    plugins = [CRITERIA.module_name(criterion)] if criterion in CRITERIA else []
    return code("prune_model.py", [adapter(wildcards), *plugins])


# finetune_model
def finetune_changes(wildcards):
    refuse_unfit(wildcards.model, wildcards.variant, wildcards.sparsity)
    values = {**dict(wildcards.items()), "variant": finetune_source(wildcards)}
    return targets.CHANGES.format(**values)


def finetune_source(wildcards):
    return targets.pruned_as(config, wildcards.variant)


def finetune_data(wildcards):
    name = targets.finetuning_of(config, wildcards.model, wildcards.variant)
    return config["finetuning"][name]["data"]


def finetune_reports(wildcards):
    reports = (report_of(entry) for entry in finetune_data(wildcards))
    return [report for report in reports if report]


def finetune_overlaps(wildcards):
    found = (overlap_of(entry) for entry in finetune_data(wildcards))
    return [path for path in found if path]


def finetune_code(wildcards):
    read = [dataset(entry) for entry in finetune_data(wildcards)]
    return code("finetune_model.py", [adapter(wildcards), *read])


# evaluate_model
def evaluation_changes(wildcards):
    dense = wildcards.variant == targets.DENSE
    if dense != (wildcards.sparsity == targets.DENSE_SPARSITY):
        raise WorkflowError(
            f"sparsity {wildcards.sparsity} of the variant {wildcards.variant}. Allowed: "
            f"{targets.DENSE_SPARSITY} for {targets.DENSE}, above it for others. Correct the path."
        )
    refuse_unfit(
        *(wildcards.model, wildcards.variant, wildcards.sparsity),
        wildcards.get("suite"),
    )
    if dense:
        return []
    template = targets.FINETUNED if wildcards.variant in TUNED else targets.CHANGES
    return template.format(**changed(wildcards))


def evaluation_donor(wildcards):
    """The dense model that was pruned, where it is another one."""
    return vision_donor(wildcards) if wildcards.variant != targets.DENSE else []


def evaluation_tasks(wildcards):
    return targets.tasks_of(config, wildcards.suite)


def evaluation_reports(wildcards):
    reports = (report_of(task) for task in evaluation_tasks(wildcards).values())
    return [report for report in reports if report]


def evaluation_code(wildcards):
    tasks = evaluation_tasks(wildcards).values()
    read = [dataset(task) for task in tasks if "dataset" in task]
    return code("evaluate_model.py", [adapter(wildcards), *read])


# export_checkpoint
def exported_point(wildcards):
    names = dict(wildcards.items())
    return targets.Point(**{**names, "seed": int(names["seed"])})


def export_metrics(wildcards):
    return targets.metrics_of(config, exported_point(wildcards))


def export_dense_metrics(wildcards):
    dense = f"{targets.DENSE}/seed{config['seeds'][0]}/{targets.DENSE_SPARSITY}/"
    own = "{variant}/seed{seed}/{sparsity}/".format(**wildcards)
    return [path.replace(own, dense) for path in export_metrics(wildcards)]


def export_manifest(wildcards):
    told = settings.export_checkpoint(config, **wildcards)["card"]
    if "calibration" not in told:
        return []
    values = changed(wildcards)
    name = targets.calibration_of(config, values["model"], wildcards.variant)
    samples = targets.SAMPLES.format(**values, calibration=name)
    return targets.beside(samples, "manifest.json")


def export_tasks(wildcards):
    """Every task that the card may show, as a reader sees it."""
    suites = [path.split("/")[-2] for path in export_metrics(wildcards)]
    names = [name for suite in suites for name in targets.tasks_of(config, suite)]
    return {name: config["tasks"][name] for name in names}


def export_code(wildcards):
    return code("export_checkpoint.py", [adapter(wildcards)])


# make_table and plot_figure
def published_file(experiment):
    name = config["experiments"][experiment].get("published")
    return f"{published.FOLDER}/{name}.csv" if name else []


def tasks_taken(experiment):
    return {
        model: targets.takes(config, experiment, model)
        for model in targets.dense_models(config, experiment)
    }


# make_table
def table_metrics(wildcards):
    return list(targets.metrics(config, wildcards.table))


def table_costs(wildcards):
    return list(targets.pruned(config, wildcards.table, targets.PRUNE_COST))


def table_score_costs(wildcards):
    return list(
        dict.fromkeys(targets.scores(config, wildcards.table, targets.SCORE_COST))
    )


def table_margins(wildcards):
    return list(targets.margins(config, wildcards.table))


def table_stages(wildcards):
    """What each stage of each row cost; a table of metrics does not say."""
    entry = config["experiments"][wildcards.table]
    return list(costs.parts(config, wildcards.table)) if entry["kind"] == "cost" else []


def table_stage_costs(wildcards):
    return list(dict.fromkeys(part.path for part in table_stages(wildcards)))


def table_finetune_costs(wildcards):
    return list(targets.finetuned(config, wildcards.table, targets.FINETUNE_COST))


def table_published(wildcards):
    return published_file(wildcards.table)


def table_settings(wildcards):
    entry = config["experiments"][wildcards.table]
    scores = {
        model: {
            name: (
                targets.calibration_of(config, model, name),
                config["variants"][name]["score"],
            )
            for name in dict.fromkeys(
                targets.pruned_as(config, variant) for variant in entry["variants"]
            )
            if "score" in config["variants"][name]
        }
        # In one order: a set's would differ from run to run, and the table with it.
        for model in dict.fromkeys(
            point.model for point in targets.changed_points(config, wildcards.table)
        )
    }
    return {
        **entry,
        "labels": targets.labels(config, wildcards.table),
        "scores": scores,
        "stages": [list(part) for part in table_stages(wildcards)],
        "takes": tasks_taken(wildcards.table),
    }


# train_demo_model
def demo_tasks(wildcards):
    suites = {"demo-blip2": "demo-generation", "demo-clip": "demo-zero-shot"}
    return targets.tasks_of(config, suites[wildcards.model])


# plot_figure
def figure_inputs(wildcards):
    return list(dict.fromkeys(targets.figure_inputs(config, wildcards.figure)))


def figure_published(wildcards):
    return published_file(wildcards.figure)


def figure_settings(wildcards):
    entry = config["experiments"][wildcards.figure]
    return {**entry, "labels": targets.labels(config, wildcards.figure)}


# loss_landscape
def landscape_entry(wildcards):
    return config["experiments"][wildcards.landscape]


def landscape_model(wildcards):
    (model,) = landscape_entry(wildcards)["models"]
    return model


def landscape_folder(wildcards):
    return f"results/models/{landscape_model(wildcards)}"


def landscape_samples(wildcards):
    return targets.landscape_samples(config, wildcards.landscape)


def landscape_code(wildcards):
    family = config["models"][landscape_model(wildcards)]["family"]
    return code("loss_landscape.py", [ADAPTERS.module_name(family)])


# What a dry run prints.
if workflow.output_settings.dryrun:
    logger.info("Jobs per experiment, if nothing had been made:")
    for name in config["run"]:
        counts = targets.jobs(config, name)
        parts = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        logger.info(f"  {name}: {sum(counts.values())} ({parts})")
