"""Draws a figure from artifacts.

Output: PDF, SVG and PNG, and the plotted numbers as CSV.
"""

from ecoflap import artifacts, figures, runtime

log = runtime.start_job(snakemake.log[0])
settings, style = snakemake.params.settings, snakemake.params.style

frame = figures.collect_data(settings, list(snakemake.input))
figure = figures.draw(frame, settings, style)

artifacts.write_text(snakemake.output.csv, frame.to_csv(index=False))
paths = {suffix: snakemake.output[suffix] for suffix in ("pdf", "svg", "png")}
figures.save(figure, paths, style["dpi"])
