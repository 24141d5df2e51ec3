rule prune_model:
    input:
        model="results/models/{model}",
        plan=given.prune_plan,
        samples=given.prune_samples,
        checkpoint=given.prune_checkpoint,
    output:
        changes="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/changes.safetensors",
        layers="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/layers.parquet",
        cost="results/pruned/{model}/{variant}/seed{seed}/{sparsity}/cost.json",
    log:
        "results/logs/prune_model/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/prune_model/{model}/{variant}/seed{seed}/{sparsity}.tsv"
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
