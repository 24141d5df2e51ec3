"""Writes what the selected experiments rest on: costs per rule, versions, licences.

Output: an HTML page for the report.
"""

from ecoflap import artifacts
from ecoflap_pipeline import job
from ecoflap_pipeline.report import pages, provenance

job.start_job(snakemake.log[0])
page = pages.html(provenance.markdown(snakemake.params.config))
artifacts.write_text(snakemake.output.page, page)
