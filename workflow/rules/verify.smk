# Looks at what is there; makes nothing.


rule verify:
    log:
        "results/logs/verify.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        config=config,
        scripts=str(sources.SCRIPTS),
    message:
        "Checking every artifact in results"
    script:
        "../scripts/verify.py"
