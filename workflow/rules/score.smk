rule compute_scores:
    input:
        model="results/models/{model}",
        samples="results/calibration/{model}/{calibration}/seed{seed}/samples.safetensors",
    output:
        scores="results/scores/{model}/{calibration}/seed{seed}/{score}.parquet",
        cost="results/scores/{model}/{calibration}/seed{seed}/{score}.cost.json",
    log:
        "results/logs/compute_scores/{model}/{calibration}/seed{seed}/{score}.log",
    benchmark:
        "results/benchmarks/compute_scores/{model}/{calibration}/seed{seed}/{score}.tsv"
    conda:
        environment
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=8000,
        runtime=240,
    params:
        settings=lookup(dpath="scores/{score}", within=config),
        dtype=lookup(dpath="models/{model}/dtype", within=config),
        offload=lookup(dpath="models/{model}/offload", within=config),
        device=config["device"],
        blocks=model_blocks,
        python=interpreter,
        code=score_code,
    message:
        "Scoring {wildcards.model} with {wildcards.score}, seed {wildcards.seed}"
    script:
        "../scripts/compute_scores.py"
