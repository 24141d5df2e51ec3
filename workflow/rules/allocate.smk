rule allocate_sparsity:
    input:
        scores=allocation_scores,
        model="results/models/{model}",
    output:
        plan="results/allocations/{model}/{variant}/seed{seed}/{sparsity}.json",
    log:
        "results/logs/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(config["variants"]),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=allocation_settings,
        code=code("allocate_sparsity.py"),
    message:
        "Allocating sparsity {wildcards.sparsity} in {wildcards.model} for {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/allocate_sparsity.py"
