rule choose_plan:
    input:
        model="results/models/{model}",
        scores=given.allocation_scores,
        samples=given.prune_samples,
    output:
        choice="results/allocations/{model}/{variant}/seed{seed}/{sparsity}.choice.json",
    log:
        "results/logs/choose_plan/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/choose_plan/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(given.pruned),
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=given.read_by("choose_plan"),
        device=config["device"],
        python=interpreter,
        code=given.choice_code,
    message:
        "Choosing a plan at {wildcards.sparsity} in {wildcards.model} for {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/choose_plan.py"


rule allocate_sparsity:
    input:
        scores=given.allocation_scores,
        choice=given.allocation_choice,
        model="results/models/{model}",
    output:
        plan="results/allocations/{model}/{variant}/seed{seed}/{sparsity}.json",
    log:
        "results/logs/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/allocate_sparsity/{model}/{variant}/seed{seed}/{sparsity}.tsv"
    wildcard_constraints:
        variant="|".join(given.pruned),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        config=given.read_by("allocate_sparsity"),
        code=given.code("allocate_sparsity.py"),
    message:
        "Allocating sparsity {wildcards.sparsity} in {wildcards.model} for {wildcards.variant}, seed {wildcards.seed}"
    script:
        "../scripts/allocate_sparsity.py"
