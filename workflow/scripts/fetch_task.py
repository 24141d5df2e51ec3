"""Fetches what a task reads besides models and configured data sets.

Output: JSON with what was fetched.
"""

from ecoflap import artifacts
from ecoflap_pipeline import downloads, job

log = job.start_job(snakemake.log[0])
task = snakemake.params.config

fetched = downloads.fetch(task)
log.info("fetched: %s", ", ".join(fetched) or "nothing was missing")

head = job.header(snakemake, "download")
artifacts.write_json(snakemake.output.report, {"fetched": fetched}, head)
