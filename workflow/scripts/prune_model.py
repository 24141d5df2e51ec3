"""Prunes a model, block after block, with the sparsities of its allocation.

Output: what changed (packed masks or tensors), a row per matrix, and what it cost.
"""

import pandas as pd

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap.pruning import changes
from ecoflap.pruning.method import prune_by, removed
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
config, files = snakemake.params.config, snakemake.input

model = models.load(
    artifacts.checked(files.model), device=snakemake.params.device, **config["loading"]
)
head = job.header(
    snakemake,
    "pruned",
    inputs=files,
    device=str(model.device),
    dense=artifacts.file_hash(files.model),
)
batches, plan = [], None
if files.get("samples"):
    samples, _ = artifacts.read_tensors(files.samples, "calibration")
    batches = sampling.batches(samples, config["batch_size"])
if files.get("plan"):
    plan = pd.DataFrame(artifacts.read_json(files.plan, "allocation")["matrices"])
with model.cost() as cost:
    pruned = prune_by(
        model, config["pruning"], sparsity=config["sparsity"], batches=batches, plan=plan
    )
report, shares = pruned.report, removed(model, pruned.report)
log.info("achieved sparsity %.6f in %.1f s", shares["achieved_sparsity"], cost.seconds)

changes.save_changes(
    model,
    snakemake.output.changes,
    head,
    updates_weights=pruned.updates_weights,
    further=pruned.further,
)
artifacts.write_table(snakemake.output.layers, report, {**head, "kind": "layers"})
facts = {**job.point(snakemake), **cost.as_dict(), **shares}
if report["tokens_per_feature"].notna().all():
    facts["tokens_per_feature"] = report["tokens_per_feature"].min()
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
