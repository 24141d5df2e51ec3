"""Puts every table and figure of the selected experiments, and how they came about, on one page.

Output: an HTML file that needs nothing else.
"""

from pathlib import Path

from ecoflap import artifacts, report, runtime

runtime.start_job(snakemake.log[0])
page = report.page(snakemake.params.config, Path(snakemake.input.template))
artifacts.write_text(snakemake.output.page, page)
