rule choose_plan:
    input:
        model=paths.MODEL.template,
        scores=given.allocation_scores,
        samples=given.prune_samples,
    output:
        choice=paths.CHOICE.template,
    log:
        paths.log("choose_plan", paths.POINT_JOB),
    benchmark:
        paths.benchmark("choose_plan", paths.POINT_JOB)
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
        model=paths.MODEL.template,
    output:
        plan=paths.PLAN.template,
    log:
        paths.log("allocate_sparsity", paths.POINT_JOB),
    benchmark:
        paths.benchmark("allocate_sparsity", paths.POINT_JOB)
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
