# What a paper run needs: looked at first, and fetched where there is a network.


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


rule download:
    input:
        targets.collect(config, targets.downloads),


rule fetch_task:
    output:
        report="results/downloads/{task}.json",
    log:
        "results/logs/fetch_task/{task}.log",
    benchmark:
        "results/benchmarks/fetch_task/{task}.tsv"
    wildcard_constraints:
        task="|".join(config["tasks"]),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        config=given.read_by("fetch_task"),
        code=given.code("fetch_task.py"),
    message:
        "Fetching what the task {wildcards.task} reads"
    script:
        "../scripts/fetch_task.py"
