# These look at what is there, before a run or after it, and make nothing.


rule preflight:
    log:
        "results/logs/preflight.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        config=config,
    message:
        "Looking at what the selected experiments need"
    script:
        "../scripts/preflight.py"


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
