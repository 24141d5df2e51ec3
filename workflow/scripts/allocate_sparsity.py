"""Turns scores into a sparsity per group under the total budget.

Output: JSON with a row per matrix: weights kept, its sparsity and that of its group.
"""

import pandas as pd

from ecoflap import allocation, artifacts
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0])
config, files = snakemake.params.config, snakemake.input

choice = artifacts.read_json(files.choice, "choice") if files.get("choice") else {}
if choice.get("matrices"):
    plan = pd.DataFrame(choice["matrices"])
else:
    tables = artifacts.read_scores(files.scores, files.model)
    (settings,) = [choice["settings"]] if choice else config["allocation"]
    plan = allocation.plan_from(tables, settings, config["sparsity"])
log.info("%d of %d weights stay", plan["keep"].sum(), plan["n_weights"].sum())

head = job.header(snakemake, "allocation", inputs=files)
artifacts.write_json(snakemake.output.plan, {"matrices": plan.to_dict("records")}, head)
