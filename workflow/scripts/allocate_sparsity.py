"""Turns scores into a sparsity per group under the total budget.

Output: JSON with a row per matrix: weights kept, its sparsity and that of its group.
"""

import pandas as pd
from ecoflap import allocation, artifacts, runtime

log = runtime.start_job(snakemake.log[0])
config = snakemake.params.config
settings, sparsity = dict(config["allocation"]), config["sparsity"]

if snakemake.input.get("scores"):
    table, _ = artifacts.read_table(snakemake.input.scores, "scores")
else:
    table = pd.DataFrame(artifacts.read_manifest(snakemake.input.model)["matrices"])
if snakemake.input.get("margins"):
    rows = artifacts.read_json(snakemake.input.margins, "margins")["margins"]
    settings["max_sparsity"] = next(row["max_sparsity"] for row in rows if row["chosen"])
if settings.pop("budget", "model") == "tower":
    sparsity = dict.fromkeys(table["tower"], sparsity)
plan = allocation.allocate(table, sparsity=sparsity, **settings)
log.info("%d of %d weights stay", plan["keep"].sum(), plan["n_weights"].sum())

head = artifacts.header(
    "allocation",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=config,
    inputs=artifacts.input_hashes(snakemake.input),
)
artifacts.write_json(snakemake.output.plan, {"matrices": plan.to_dict("records")}, head)
