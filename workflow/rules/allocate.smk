rule choose_max_sparsity:
    input:
        model="results/models/{model}",
        scores=allocation_scores,
        samples=prune_samples,
    output:
        margins="results/allocations/{model}/{variant}/seed{seed}/{sparsity}.margins.json",
    log:
        "results/logs/choose_max_sparsity/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/choose_max_sparsity/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(PRUNED),
    conda:
        environment
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=read_by("choose_max_sparsity"),
        device=config["device"],
        python=interpreter,
        code=margins_code,
    message:
        "Choosing p_max at {wildcards.sparsity} in {wildcards.model} for {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/choose_max_sparsity.py"


rule allocate_sparsity:
    input:
        scores=allocation_scores,
        margins=allocation_margins,
        model="results/models/{model}",
    output:
        plan="results/allocations/{model}/{variant}/seed{seed}/{sparsity}.json",
    log:
        "results/logs/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(PRUNED),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        config=read_by("allocate_sparsity"),
        code=code("allocate_sparsity.py"),
    message:
        "Allocating sparsity {wildcards.sparsity} in {wildcards.model} for {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/allocate_sparsity.py"
