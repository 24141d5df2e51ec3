rule export_checkpoint:
    input:
        model=paths.MODEL.template,
        changes=given.evaluation_changes,
        donor=given.evaluation_donor,
        manifest=given.export_manifest,
        metrics=given.export_metrics,
        dense_metrics=given.export_dense_metrics,
    output:
        folder=directory(paths.EXPORT.template),
    log:
        paths.log("export_checkpoint", paths.POINT_JOB),
    benchmark:
        paths.benchmark("export_checkpoint", paths.POINT_JOB)
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
