"""Compares the files that samples are drawn from with those that their models are asked about.

Output: JSON with the number of files drawn from, and the tasks that they were compared with.
"""

from ecoflap import artifacts
from ecoflap.data.overlap import compare
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0])
config = snakemake.params.config

found = compare(config["drawn"], config["evaluated"])
log.info("%d files, of none of which the tasks ask: %s", found["files"], found["compared"])

head = job.header(snakemake, "overlap")
artifacts.write_json(snakemake.output.report, found, head)
