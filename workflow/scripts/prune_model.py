"""Prunes a model, block after block, with the sparsities of its allocation.

Output: what changed (packed masks or tensors), a row per matrix, and what it cost.
"""

import pandas as pd

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap.plugins import CRITERIA, IMPORTED
from ecoflap.pruning import changes, layerwise, whole_model
from ecoflap.pruning.published_checkpoint import take_checkpoint
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
config, files = snakemake.params.config, snakemake.input
settings, sparsity, seed = config["pruning"], config["sparsity"], int(snakemake.wildcards.seed)
criterion = settings["criterion"]

model = models.load(
    artifacts.checked(files.model), device=snakemake.params.device, **config["loading"]
)
head = artifacts.header(
    "pruned",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=config,
    seed=seed,
    device=str(model.device),
    inputs=artifacts.input_hashes(files),
    dense=artifacts.file_hash(files.model),
)
batches, updates, further = [], False, None
if files.get("samples"):
    samples, _ = artifacts.read_tensors(files.samples, "calibration")
    batches = sampling.batches(samples, config["batch_size"])
if criterion == "global-magnitude":
    with model.cost() as cost:
        report = whole_model.prune_global_magnitude(model, sparsity)
elif criterion == IMPORTED:
    given = settings["checkpoint"]
    with model.cost() as cost:
        report, further = take_checkpoint(
            model,
            file=given["file"],
            form=given["format"],
            sparsity=sparsity,
        )
    updates = True
elif criterion == "iterative-obd":
    with model.cost() as cost:
        report = whole_model.prune_iterative_obd(model, batches, sparsity)
else:
    plan = pd.DataFrame(artifacts.read_json(files.plan, "allocation")["matrices"])
    with model.cost() as cost:
        report = layerwise.prune(model, batches, plan, **settings)
    updates = CRITERIA.get(criterion).UPDATES_WEIGHTS
removed = (report["achieved_sparsity"] * report["n_weights"]).sum()
achieved = removed / report["n_weights"].sum()
whole = removed / sum(p.numel() for p in model.module.parameters())
log.info("achieved sparsity %.6f in %.1f s", achieved, cost.seconds)

changes.save_changes(
    model, snakemake.output.changes, head, updates_weights=updates, further=further
)
artifacts.write_table(snakemake.output.layers, report, {**head, "kind": "layers"})
point = {key: snakemake.wildcards[key] for key in ("model", "variant", "sparsity")}
facts = {
    **point,
    "seed": seed,
    **cost.as_dict(),
    "achieved_sparsity": achieved,
    "whole_model_sparsity": whole,
}
if report["tokens_per_feature"].notna().all():
    facts["tokens_per_feature"] = report["tokens_per_feature"].min()
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
