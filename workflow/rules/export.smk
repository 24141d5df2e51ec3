rule export_checkpoint:
    input:
        model="results/models/{model}",
        changes=given.evaluation_changes,
        donor=given.evaluation_donor,
        manifest=given.export_manifest,
        metrics=given.export_metrics,
        dense_metrics=given.export_dense_metrics,
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
        config=given.read_by("export_checkpoint"),
        tasks=given.export_tasks,
        python=interpreter,
        code=given.export_code,
    message:
        "Exporting {wildcards.model} {wildcards.variant} {wildcards.sparsity}, seed {wildcards.seed}"
    script:
        "../scripts/export_checkpoint.py"
