"""Trains one of the two demo models and measures it on its tasks.

Output: a folder that `from_pretrained` loads (float16 weights, configuration, tokenizer, image
processor), `training_log.csv`, and `dense_metrics.json`.
"""

from pathlib import Path

from demo import train_demo_model
from ecoflap import artifacts, models
from ecoflap.evaluation.suite import evaluate
from ecoflap_pipeline.job import start_job

start_job(snakemake.log[0], threads=snakemake.threads)
folder, seed = Path(snakemake.output.weights).parent, snakemake.params.seed

train_demo_model(snakemake.wildcards.model, folder, seed=seed)
_, numbers = evaluate(models.load(folder, device="cpu"), snakemake.params.tasks)
head = artifacts.header(
    "dense_metrics",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=snakemake.params.tasks,
    seed=seed,
)
artifacts.write_json(snakemake.output.metrics, {"metrics": numbers}, head)
