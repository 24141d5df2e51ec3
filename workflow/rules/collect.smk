# Targets only: one stage, one experiment. A bare `snakemake` makes `all`, in the Snakefile.


rule calibrations:
    input:
        targets.collect(config, targets.samples),


rule scores:
    input:
        targets.collect(config, targets.scores),


rule allocations:
    input:
        targets.collect(config, targets.plans),


rule pruned_models:
    input:
        targets.collect(config, targets.pruned),


rule finetuned_models:
    input:
        targets.collect(config, targets.finetuned),


rule evaluations:
    input:
        targets.collect(config, targets.metrics),


rule exports:
    input:
        targets.collect(config, targets.exports),


rule tables:
    input:
        [
            file
            for name in targets.of_kind(config, config["run"], *targets.TABLES)
            for file in targets.outputs(config, name)
        ],


rule figures:
    input:
        [
            file
            for name in targets.of_kind(config, config["run"], *targets.FIGURES)
            for file in targets.outputs(config, name)
        ],


for name in config["experiments"]:

    rule:
        name:
            name
        input:
            list(targets.outputs(config, name)),
