"""Scores every prunable matrix by its effect on the loss of the whole model.

Output: one row per matrix (parquet), and what the scoring cost (JSON). A shard has the rows of
some blocks; the job that gathers shards writes what one job for all would have written.
"""

from ecoflap import artifacts, measure, models, scores
from ecoflap.data import sampling
from ecoflap.engine import shards
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
config, point, files = snakemake.params.config, dict(snakemake.params.point), snakemake.input
settings, seed = dict(config["score"]), point["seed"]

if files.get("shards"):
    read = [artifacts.read_table(file, "scores") for file in files.shards]
    table = scores.gather(
        [part for part, _ in read], artifacts.read_manifest(files.model)["matrices"]
    )
    cost = measure.total_cost([artifacts.read_json(file, "cost") for file in files.costs])
    device = cost["device"]
else:
    model = models.load(
        artifacts.checked(files.model), device=snakemake.params.device, **config["loading"]
    )
    device = str(model.device)
    samples, _ = artifacts.read_tensors(files.samples, "calibration")
    batches = sampling.batches(samples, settings.pop("batch_size"), settings.pop("samples"))
    if "shard" in point:
        settings["blocks"] = shards.blocks_of_shard(
            model, int(point.pop("shard")), int(point.pop("shards"))
        )
    with model.cost() as measured:
        table = scores.score(model, batches, seed=seed, **settings)
    cost = measured.as_dict()
log.info("%d matrices in %.1f s", len(table), cost["seconds"])

head = job.header(snakemake, "scores", inputs=[files.model, files.samples], device=device)
artifacts.write_table(snakemake.output.scores, table, head)
artifacts.write_json(snakemake.output.cost, {**point, **cost}, {**head, "kind": "cost"})
