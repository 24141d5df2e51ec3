# Only for data sets that are not built in; each is looked at once, whoever uses it.
rule check_dataset:
    output:
        report=paths.DATASET.template,
    log:
        paths.log("check_dataset", paths.DATASET_JOB),
    benchmark:
        paths.benchmark("check_dataset", paths.DATASET_JOB)
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        config=given.read_by("check_dataset"),
        licence=lookup(
            dpath="datasets/{dataset}/licence", within=config, default="not stated"
        ),
        code=given.dataset_code,
    message:
        "Looking at {wildcards.dataset}, split {wildcards.split}, view {wildcards.view}"
    script:
        "../scripts/check_dataset.py"


# Only for data sets that samples are drawn from: what no configuration tells, their lists do.
rule check_overlap:
    output:
        report=paths.OVERLAP.template,
    log:
        paths.log("check_overlap", paths.DATASET_JOB),
    benchmark:
        paths.benchmark("check_overlap", paths.DATASET_JOB)
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        config=given.read_by("check_overlap"),
        code=given.overlap_code,
    message:
        "Comparing {wildcards.dataset}, split {wildcards.split}, with what is evaluated"
    script:
        "../scripts/check_overlap.py"


# What a run needs from a network, fetched where there is one.
rule download:
    input:
        targets.collect(config, targets.downloads),


rule fetch_task:
    output:
        report=paths.DOWNLOAD.template,
    log:
        paths.log("fetch_task", "{task}"),
    benchmark:
        paths.benchmark("fetch_task", "{task}")
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
