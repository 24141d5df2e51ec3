rule prune_model:
    input:
        model="results/models/{model}",
        plan=prune_plan,
        samples=prune_samples,
        checkpoint=prune_checkpoint,
    output:
        changes="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/changes.safetensors",
        layers="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/layers.parquet",
        cost="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/cost.json",
    log:
        "results/logs/prune_model/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/prune_model/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(PRUNED),
    conda:
        environment
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        config=read_by("prune_model"),
        device=config["device"],
        python=interpreter,
        code=prune_code,
    message:
        "Pruning {wildcards.model} to {wildcards.sparsity} with {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/prune_model.py"
