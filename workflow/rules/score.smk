rule compute_scores:
    input:
        model=paths.MODEL.template,
        samples=paths.SAMPLES.template,
        shards=given.score_shards,
        costs=given.score_shard_costs,
    output:
        scores=paths.SCORES.template,
        cost=paths.SCORES_COST.template,
    log:
        paths.log("compute_scores", paths.SCORE_JOB),
    conda:
        environment
    threads: 1
    resources:
        gpu=given.score_gpus,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        config=given.read_by("compute_scores"),
        point=given.point,
        device=config["device"],
        python=interpreter,
        code=given.score_code,
    message:
        "Scoring {wildcards.model} with {wildcards.score}, seed {wildcards.seed}"
    script:
        "../scripts/compute_scores.py"


# A range of the model's blocks; compute_scores gathers them.
use rule compute_scores as score_shard with:
    input:
        model=paths.MODEL.template,
        samples=paths.SAMPLES.template,
    output:
        scores=temp(paths.SHARD.template),
        cost=temp(paths.SHARD_COST.template),
    log:
        paths.log("score_shard", f"{paths.SCORE_JOB}/{{shard}}-of-{{shards}}"),
    wildcard_constraints:
        shard="[0-9]+",
        shards="[0-9]+",
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(240),
    message:
        "Scoring {wildcards.model} with {wildcards.score}, seed {wildcards.seed}, shard {wildcards.shard} of {wildcards.shards}"
