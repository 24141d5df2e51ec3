"""Looks at every example of a data set that is not built in.

Output: JSON with the number of examples, what was left out, the fingerprint of the texts, and the
licence.
"""

from ecoflap import artifacts
from ecoflap.data.inspect import check
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0])
dataset = snakemake.params.config

found = check(dataset)
log.info("%s: %d examples", dataset["name"], found["examples"])
for what, count in found["left_out"].items():
    log.warning("%s: left out: %d %s", dataset["name"], count, what)

head = job.header(snakemake, "dataset")
facts = {**found, "licence": snakemake.params.licence}
artifacts.write_json(snakemake.output.report, facts, head)
