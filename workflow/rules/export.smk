rule export_checkpoint:
    input:
        model="results/models/{model}",
        changes=evaluation_changes,
        donor=evaluation_donor,
        manifest=export_manifest,
        metrics=export_metrics,
        dense_metrics=export_dense_metrics,
    output:
        folder=directory("results/exports/{model}/{variant}/seed{seed}/{sparsity}"),
    log:
        "results/logs/export_checkpoint/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/export_checkpoint/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(config["variants"]),
    conda:
        environment
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        config=read_by("export_checkpoint"),
        tasks=export_tasks,
        python=interpreter,
        code=export_code,
    message:
        "Exporting {wildcards.model} {wildcards.variant} {wildcards.sparsity}, seed {wildcards.seed}"
    script:
        "../scripts/export_checkpoint.py"


rule compact_checkpoint:
    input:
        folder="results/exports/{model}/{variant}/seed{seed}/{sparsity}",
    output:
        folder=directory("results/compact/{model}/{variant}/seed{seed}/{sparsity}"),
    log:
        "results/logs/compact_checkpoint/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/compact_checkpoint/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(config["variants"]),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        config=read_by("compact_checkpoint"),
        code=code("compact_checkpoint.py"),
    message:
        "Packing {wildcards.model} {wildcards.variant} {wildcards.sparsity}, seed {wildcards.seed}"
    script:
        "../scripts/compact_checkpoint.py"
