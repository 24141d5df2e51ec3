# Which Python the job of a model runs with, and what must be there before the first one.
from ecoflap import preflight, readiness
from ecoflap.registry import FAMILIES
from snakemake.settings.types import DeploymentMethod


def model_of(wildcards):
    return wildcards.get("model") or landscape_model(wildcards)


def environment(wildcards):
    """What the adapter of a model imports."""
    family = config["models"][model_of(wildcards)]["family"]
    return f"../../envs/{FAMILIES[family].environment}.yaml"


def interpreter(wildcards):
    return readiness.interpreter(config, model_of(wildcards))


def missing_at_start():
    """What the jobs to run would stop at."""
    jobs = list(workflow.dag.needrun_jobs())
    running = {model_of(job.wildcards) for job in jobs if hasattr(job.params, "python")}
    preparing = {
        job.wildcards.model for job in jobs if job.rule.name == "prepare_model"
    }
    suites = {job.wildcards.suite for job in jobs if job.rule.name == "evaluate_model"}
    tasks = {task for suite in suites for task in targets.tasks_of(config, suite)}
    methods = workflow.deployment_settings.deployment_method
    problems = readiness.missing(
        config, running, preparing, conda=DeploymentMethod.CONDA in methods
    )
    needs = preflight.tools(config, sorted(tasks))
    lacking = (
        f"{n.what}: {n.detail}. {n.remedy}" for n in needs if n.state == "missing"
    )
    return "\n".join([*problems, *dict.fromkeys(lacking)])


onstart:
    if missing_at_start():
        raise WorkflowError(missing_at_start())
