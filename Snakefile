import os
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

# The project as seen from where Snakemake works: "." in its root, another folder with --directory
# or as a module.
HERE = Path(os.path.relpath(workflow.current_basedir.get_path_or_uri(secret_free=True)))


configfile: str(HERE / "config/config.yaml")
configfile: str(HERE / "config/models.yaml")
configfile: str(HERE / "config/datasets.yaml")
configfile: str(HERE / "config/calibrations.yaml")
configfile: str(HERE / "config/scores.yaml")
configfile: str(HERE / "config/variants.yaml")
configfile: str(HERE / "config/finetuning.yaml")
configfile: str(HERE / "config/tasks.yaml")
configfile: str(HERE / "config/experiments.yaml")
configfile: str(HERE / "config/plotting.yaml")


report: "workflow/report/workflow.rst"


resource_scopes:
    gpu="local",  # a profile's limit is of the jobs on one machine, not of those on a cluster


include: "workflow/rules/common.smk"


rule all:
    input:
        targets.collect(config, targets.outputs),


include: "workflow/rules/collect.smk"
include: "workflow/rules/checks.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/allocate.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/demo.smk"
