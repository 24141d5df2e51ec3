rule loss_landscape:
    input:
        model=landscape_folder,
        samples=landscape_samples,
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
        gpu=GPUS,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=read_by("loss_landscape"),
        device=config["device"],
        python=interpreter,
        code=landscape_code,
    message:
        "Walking the loss landscape {wildcards.landscape}"
    script:
        "../scripts/loss_landscape.py"
