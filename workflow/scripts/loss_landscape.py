"""Computes the loss of a model on a grid around its dense weights.

Output: one row per grid point (parquet): x, y, loss.
"""

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap.evaluation.loss_landscape import loss_landscape
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params = snakemake.input, snakemake.params
config, seed = params.config, params.config["seed"]

model = models.load(artifacts.checked(files.model), device=params.device, **config["loading"])
samples, _ = artifacts.read_tensors(files.samples, "calibration")
batches = sampling.batches(samples, config["batches"]["batch_size"], config["batches"]["samples"])
head = job.header(snakemake, "landscape", seed=seed, inputs=files, device=str(model.device))
with model.cost() as cost:
    table = loss_landscape(model, batches, seed=seed, **config["grid"])
log.info("%d losses in %.1f s", len(table), cost.seconds)
artifacts.write_table(snakemake.output.landscape, table, {**head, **cost.as_dict()})
