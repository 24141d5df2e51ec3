rule prepare_model:
    input:
        files=given.model_files,
        donor=given.donor,
    output:
        model=directory(paths.MODEL.template),
    log:
        paths.log("prepare_model", paths.MODEL_JOB),
    benchmark:
        paths.benchmark("prepare_model", paths.MODEL_JOB)
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
