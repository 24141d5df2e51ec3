"""Draws a figure from artifacts.

Output: PDF, SVG and PNG, and the plotted numbers as CSV.
"""

from ecoflap import artifacts
from ecoflap_pipeline import job
from ecoflap_pipeline.report import figures, published

log = job.start_job(snakemake.log[0])
settings, style = snakemake.params.settings, snakemake.params.style

where, files = settings.get("published_where"), snakemake.input
rows = published.read(files.published, where) if files.get("published") else []
frame = figures.collect_data(settings, files.artifacts, published.cells(rows))
figure = figures.draw(frame, settings, style)

artifacts.write_text(snakemake.output.csv, frame.to_csv(index=False))
paths = {suffix: snakemake.output[suffix] for suffix in ("pdf", "svg", "png")}
figures.save(figure, paths, style["dpi"])
