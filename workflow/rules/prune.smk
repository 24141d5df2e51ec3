rule prune_model:
    input:
        model=paths.MODEL.template,
        plan=given.prune_plan,
        samples=given.prune_samples,
        checkpoint=given.prune_checkpoint,
    output:
        changes=paths.CHANGES.template,
        layers=paths.LAYERS.template,
        cost=paths.PRUNE_COST.template,
    log:
        paths.log("prune_model", paths.POINT_JOB),
    benchmark:
        paths.benchmark("prune_model", paths.POINT_JOB)
    wildcard_constraints:
        variant="|".join(given.pruned),
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        config=given.read_by("prune_model"),
        device=config["device"],
        python=interpreter,
        code=given.prune_code,
    message:
        "Pruning {wildcards.model} to {wildcards.sparsity} with {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/prune_model.py"
