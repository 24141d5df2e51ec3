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
            "results/tables/{table}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{table}", "form": "table"},
        ),
        csv=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{table}", "form": "numbers (CSV)"},
        ),
        md="results/tables/{table}.md",
        tex="results/tables/{table}.tex",
    log:
        "results/logs/make_table/{table}.log",
    benchmark:
        "results/benchmarks/make_table/{table}.tsv"
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
