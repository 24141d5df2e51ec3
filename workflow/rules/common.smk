# Loads and checks the configuration; input and params functions of the rules.
import sys

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str((HERE / "workflow/scripts").absolute()))

from ecoflap.errors import ConfigError
from ecoflap_pipeline import code as sources
from ecoflap_pipeline import internals, targets
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


given = Given(config)


# What a dry run prints.
if internals.is_dry_run(workflow):
    logger.info("Jobs per experiment, if nothing had been made:")
    for name in config["run"]:
        counts = targets.jobs(config, name)
        parts = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        logger.info(f"  {name}: {sum(counts.values())} ({parts})")
