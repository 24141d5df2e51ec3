# What Snakemake's own report does not know: `make report` makes both.


rule describe_run:
    input:
        outputs=targets.collect(config, targets.outputs),
        jobs=targets.made(config),
    output:
        page=report(
            "results/report/run.html",
            caption="../report/run.rst",
            category="Run",
            labels={"page": "cost, versions, licences"},
        ),
    log:
        "results/logs/describe_run.log",
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        config=config,
        code=given.code("describe_run.py"),
    message:
        "Describing the run"
    script:
        "../scripts/describe_run.py"
