rule plot_figure:
    input:
        artifacts=given.figure_inputs,
        published=given.figure_published,
    output:
        pdf="results/figures/{figure}.pdf",
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"experiment": "{figure}"},
        ),
        png="results/figures/{figure}.png",
        csv="results/figures/{figure}.csv",
    log:
        "results/logs/plot_figure/{figure}.log",
    benchmark:
        "results/benchmarks/plot_figure/{figure}.tsv"
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
