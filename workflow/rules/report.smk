# One page with all that the selected experiments made.


rule report_page:
    input:
        outputs=targets.collect(config, targets.outputs),
        jobs=targets.made(config),
        template="workflow/report/page.html",
    output:
        page="results/report.html",
    log:
        "results/logs/report_page.log",
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        config=config,
        code=code("make_report.py"),
    message:
        "Making the report"
    script:
        "../scripts/make_report.py"
