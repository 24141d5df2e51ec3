"""Train one of the two demo models.

Output: a folder that `from_pretrained` loads (float16 weights, configuration, tokenizer, image
processor) and `training_log.csv`.
"""

from pathlib import Path

from ecoflap.demo import train_demo_model
from ecoflap.runtime import start_job

start_job(snakemake.log[0], threads=snakemake.threads)
train_demo_model(
    snakemake.wildcards.model,
    Path(snakemake.output.weights).parent,
    seed=snakemake.params.seed,
)
