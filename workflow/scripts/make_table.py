"""Makes a table of metrics, or of what each stage cost, with the published numbers beside them.

Output: the long form as CSV, and the table as Markdown, HTML and LaTeX.
"""

from ecoflap import artifacts
from ecoflap_pipeline import job
from ecoflap_pipeline.report import collect, costs, pages, published, tables

log = job.start_job(snakemake.log[0])
settings, files = snakemake.params.settings, snakemake.input

if settings["kind"] == "cost":
    summary, cost = None, costs.by_stage([costs.Part(*part) for part in settings["stages"]])
else:
    summary = collect.over_seeds(collect.metrics(files.metrics))
    cost = collect.costs(
        files.costs, files.score_costs, files.choices, settings["scores"], files.finetune_costs
    )
    cost = cost[cost["variant"].isin(settings["variants"])]
where = settings.get("published_where")
rows = published.read(files.published, where) if files.get("published") else []
frame = tables.tidy(summary, cost, published.cells(rows), settings)

artifacts.write_text(snakemake.output.csv, frame.to_csv(index=False))
text = tables.markdown(frame, settings["title"])
artifacts.write_text(snakemake.output.md, text)
artifacts.write_text(snakemake.output.html, pages.html(text))
artifacts.write_text(snakemake.output.tex, tables.latex(frame, settings["title"]))
