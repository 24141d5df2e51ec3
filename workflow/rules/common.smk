# Loads and checks the configuration; input and params functions of the rules.
import sys

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str((HERE / "workflow/scripts").absolute()))

from ecoflap.errors import ConfigError
from ecoflap.plugins import FAMILIES
from ecoflap_pipeline import code as sources
from ecoflap_pipeline import internals, paths, points, preflight, readiness, targets
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.given import Given

try:
    configuration.check(
        config,
        HERE,
        internals.config_files(workflow),
        internals.config_given(workflow),
    )
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if Path("results").exists() and not os.access("results", os.W_OK):
    raise WorkflowError(
        "the folder results may not be written. Allowed: a folder of your own, on a disk "
        "that is not read-only. Mend its rights, or run in another copy of the repository."
    )

sources.export_library()


wildcard_constraints:
    **paths.WILDCARDS,
    model="|".join(config["models"]),
    calibration="|".join(config["calibrations"]),
    dataset="|".join(config["datasets"]),
    split="[^/]+",
    view="[^/]+",
    score="|".join(config["scores"]),
    variant="|".join([points.DENSE, *config["variants"]]),
    suite="|".join([*config["suites"], *config["tasks"]]),
    table="|".join(targets.of_kind(config, config["experiments"], *targets.TABLES))
    or "none",
    figure="|".join(targets.of_kind(config, config["experiments"], *targets.FIGURES))
    or "none",
    landscape="|".join(
        targets.of_kind(config, config["experiments"], "loss-landscape")
    )
    or "none",


def growing(first):
    """Memory or time of which a job gets more whenever it is submitted again."""

    def of(wildcards, attempt):
        return first * attempt

    return of


given = Given(config)


# Which Python the job of a model runs with, and what must be there before the first one.
def model_of(wildcards):
    return wildcards.get("model") or given.landscape_model(wildcards)


def environment(wildcards):
    """What the adapter of a model imports."""
    family = config["models"][model_of(wildcards)]["family"]
    return f"../../envs/{FAMILIES[family].environment}.yaml"


def interpreter(wildcards):
    return readiness.interpreter(config, model_of(wildcards))


def missing_at_start():
    """What the jobs to run would stop at."""
    executor = internals.executor(workflow)
    if executor == "slurm":
        yield from readiness.slurm_problems()
    jobs = list(internals.jobs_to_run(workflow))
    on_gpu = config["device"] == "cuda" and any(
        job.resources.get("gpu") for job in jobs
    )
    if on_gpu and executor == "local":
        yield from readiness.gpu_problems()
    running = {model_of(job.wildcards) for job in jobs if hasattr(job.params, "python")}
    preparing = {
        job.wildcards.model for job in jobs if job.rule.name == "prepare_model"
    }
    suites = {job.wildcards.suite for job in jobs if job.rule.name == "evaluate_model"}
    tasks = {task for suite in suites for task in points.tasks_of(config, suite)}
    yield from readiness.missing(
        config, running, preparing, conda=internals.uses_conda(workflow)
    )
    for need in preflight.tools(config, sorted(tasks)):
        if need.state == "missing":
            yield f"{need.what} is missing ({need.detail}). {need.remedy}"


onstart:
    if internals.executor(workflow) == "local":
        internals.lift_job_rate(workflow)
    problems = list(dict.fromkeys(missing_at_start()))
    if problems:
        raise WorkflowError("\n".join(problems))


# What a dry run prints.
if internals.is_dry_run(workflow):
    logger.info("Jobs per experiment, if nothing had been made:")
    for name in config["run"]:
        counts = targets.jobs(config, name)
        parts = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        logger.info(f"  {name}: {sum(counts.values())} ({parts})")
