from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"
configfile: "config/models.yaml"
configfile: "config/datasets.yaml"
configfile: "config/calibrations.yaml"
configfile: "config/scores.yaml"
configfile: "config/variants.yaml"
configfile: "config/finetuning.yaml"
configfile: "config/tasks.yaml"
configfile: "config/experiments.yaml"
configfile: "config/plotting.yaml"


report: "workflow/report/workflow.rst"


resource_scopes:
    gpu="local",  # a profile's limit is of the jobs on one machine, not of those on a cluster


include: "workflow/rules/common.smk"
include: "workflow/rules/environments.smk"


rule all:
    input:
        targets.collect(config, targets.outputs),


include: "workflow/rules/collect.smk"
include: "workflow/rules/preflight.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/allocate.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/landscape.smk"
include: "workflow/rules/tabulate.smk"
include: "workflow/rules/plot.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/demo.smk"
