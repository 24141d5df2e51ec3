rule compute_scores:
    input:
        model="results/models/{model}",
        samples="results/calibration/{model}/{calibration}/seed{seed}/samples.safetensors",
        shards=given.score_shards,
        costs=given.score_shard_costs,
    output:
        scores="results/scores/{model}/{calibration}/seed{seed}/{score}.parquet",
        cost="results/scores/{model}/{calibration}/seed{seed}/{score}.cost.json",
    log:
        "results/logs/compute_scores/{model}/{calibration}/seed{seed}/{score}.log",
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
rule score_shard:
    input:
        model="results/models/{model}",
        samples="results/calibration/{model}/{calibration}/seed{seed}/samples.safetensors",
    output:
        scores=temp(
            "results/scores/{model}/{calibration}/seed{seed}/{score}.shards/{shard}-of-{shards}.parquet"
        ),
        cost=temp(
            "results/scores/{model}/{calibration}/seed{seed}/{score}.shards/{shard}-of-{shards}.cost.json"
        ),
    log:
        "results/logs/score_shard/{model}/{calibration}/seed{seed}/{score}/{shard}-of-{shards}.log",
    wildcard_constraints:
        shard="[0-9]+",
        shards="[0-9]+",
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        config=given.read_by("compute_scores"),
        point=given.point,
        device=config["device"],
        python=interpreter,
        code=given.score_code,
    message:
        "Scoring {wildcards.model} with {wildcards.score}, seed {wildcards.seed}, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/compute_scores.py"
