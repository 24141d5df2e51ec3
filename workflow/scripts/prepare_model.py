"""Brings a dense checkpoint to results/models and lists its prunable matrices.

Output: a folder with the checkpoint, its processor and manifest.json (hash of every file).
"""

from pathlib import Path

from ecoflap import artifacts, models, scores
from ecoflap.models.checkpoints import sources, towers
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
folder = Path(snakemake.output.model)
config = snakemake.params.config

folder.mkdir(parents=True, exist_ok=True)
sources.fetch(config["source"], folder)
model = models.load(folder, device="cpu", family=config["family"], blocks=config.get("blocks"))
models.check_processor(model)
if snakemake.input.get("donor"):
    donor = models.load(artifacts.checked(snakemake.input.donor), device="cpu")
    towers.put_towers(model, donor, config["towers"])
if snakemake.input.get("donor") or sources.is_pickled(folder):
    sources.rewrite(model, folder)
matrices = scores.matrix_table(model)
log.info("%s: %d prunable matrices, %d weights", folder, len(matrices), matrices.n_weights.sum())

head = job.header(snakemake, "model", inputs=filter(None, [snakemake.input.get("donor")]))
artifacts.write_manifest(folder, head, matrices.to_dict("records"))
