"""All that the rules read of Snakemake which it does not document; tests name each part."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from snakemake.jobs import Job
from snakemake.settings.types import DeploymentMethod
from snakemake.workflow import Workflow


def config_files(workflow: Workflow) -> list[str | Path]:
    """Returns the configuration files that were read."""
    return workflow.configfiles


def config_given(workflow: Workflow) -> Mapping:
    """Returns what the command line says of the configuration."""
    return workflow.config_settings.config


def is_dry_run(workflow: Workflow) -> bool:
    """Tells whether Snakemake only says what it would do."""
    return workflow.output_settings.dryrun


def executor(workflow: Workflow) -> str:
    """Returns where jobs run, ``local``, ``slurm`` and so on, once the first is about to start."""
    return workflow.executor_plugin.name


def jobs_to_run(workflow: Workflow) -> Iterator[Job]:
    """Yields the jobs that will run, once the DAG is built."""
    return workflow.dag.needrun_jobs()


def lift_job_rate(workflow: Workflow) -> None:
    """Takes the limit of jobs per second away, once the first is about to start.

    With it, each job that ends leaves one more timer that looks at all jobs once a second: after
    200 jobs Snakemake itself needs a third of a core.
    """
    workflow.scheduler.job_rate_limiter = None


def uses_conda(workflow: Workflow) -> bool:
    """Tells whether jobs run in conda environments."""
    return DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
