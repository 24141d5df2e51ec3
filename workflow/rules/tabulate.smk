rule make_table:
    input:
        metrics=table_metrics,
        costs=table_costs,
        score_costs=table_score_costs,
        margins=table_margins,
        stage_costs=table_stage_costs,
        finetune_costs=table_finetune_costs,
        published=table_published,
    output:
        csv=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{table}"},
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
        settings=table_settings,
        code=code("make_table.py"),
    message:
        "Making {wildcards.table}"
    script:
        "../scripts/make_table.py"
