# What a reader looks at.


rule make_table:
    input:
        metrics=given.table_metrics,
        costs=given.table_costs,
        score_costs=given.table_score_costs,
        choices=given.table_choices,
        stage_costs=given.table_stage_costs,
        finetune_costs=given.table_finetune_costs,
        published=given.table_published,
    output:
        html=report(
            paths.table("html"),
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{table}", "form": "table"},
        ),
        csv=report(
            paths.table("csv"),
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{table}", "form": "numbers (CSV)"},
        ),
        md=paths.table("md"),
        tex=paths.table("tex"),
    log:
        paths.log("make_table", "{table}"),
    benchmark:
        paths.benchmark("make_table", "{table}")
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        settings=given.table_settings,
        code=given.code("make_table.py"),
    message:
        "Making {wildcards.table}"
    script:
        "../scripts/make_table.py"


rule plot_figure:
    input:
        artifacts=given.figure_inputs,
        published=given.figure_published,
    output:
        pdf=paths.figure("pdf"),
        svg=report(
            paths.figure("svg"),
            caption="../report/figure.rst",
            category="Figures",
            labels={"experiment": "{figure}"},
        ),
        png=paths.figure("png"),
        csv=paths.figure("csv"),
    log:
        paths.log("plot_figure", "{figure}"),
    benchmark:
        paths.benchmark("plot_figure", "{figure}")
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        settings=given.figure_settings,
        style=config["plotting"],
        code=given.code("plot_figure.py"),
    message:
        "Drawing {wildcards.figure}"
    script:
        "../scripts/plot_figure.py"


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
