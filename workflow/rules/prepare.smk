rule prepare_model:
    input:
        files=given.model_files,
        donor=given.vision_donor,
    output:
        model=directory("results/models/{model}"),
    log:
        "results/logs/prepare_model/{model}.log",
    benchmark:
        "results/benchmarks/prepare_model/{model}.tsv"
    conda:
        environment
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        config=given.read_by("prepare_model"),
        python=interpreter,
        code=given.prepare_code,
    message:
        "Preparing the dense model {wildcards.model}"
    script:
        "../scripts/prepare_model.py"
