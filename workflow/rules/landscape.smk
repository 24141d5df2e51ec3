rule loss_landscape:
    input:
        model=given.landscape_folder,
        samples=given.landscape_samples,
    output:
        landscape="results/landscapes/{landscape}.parquet",
    log:
        "results/logs/loss_landscape/{landscape}.log",
    benchmark:
        "results/benchmarks/loss_landscape/{landscape}.tsv"
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=given.read_by("loss_landscape"),
        device=config["device"],
        python=interpreter,
        code=given.landscape_code,
    message:
        "Walking the loss landscape {wildcards.landscape}"
    script:
        "../scripts/loss_landscape.py"
