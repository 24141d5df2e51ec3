# Only for data sets that are not built in; each is looked at once, whoever uses it.
rule check_dataset:
    output:
        report="results/datasets/{dataset}/{split}/{view}.json",
    log:
        "results/logs/check_dataset/{dataset}/{split}/{view}.log",
    benchmark:
        "results/benchmarks/check_dataset/{dataset}/{split}/{view}.tsv"
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
        report="results/overlaps/{dataset}/{split}/{view}.json",
    log:
        "results/logs/check_overlap/{dataset}/{split}/{view}.log",
    benchmark:
        "results/benchmarks/check_overlap/{dataset}/{split}/{view}.tsv"
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
