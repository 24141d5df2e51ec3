# Which Python the job of a model runs with, and what must be there before the first one.
from ecoflap_pipeline import preflight, readiness
from ecoflap.plugins import FAMILIES


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
    tasks = {task for suite in suites for task in targets.tasks_of(config, suite)}
    yield from readiness.missing(
        config, running, preparing, conda=internals.uses_conda(workflow)
    )
    for need in preflight.tools(config, sorted(tasks)):
        if need.state == "missing":
            yield f"{need.what} is missing ({need.detail}). {need.remedy}"


onstart:
    problems = list(dict.fromkeys(missing_at_start()))
    if problems:
        raise WorkflowError("\n".join(problems))
