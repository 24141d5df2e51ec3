"""Writes a pruned model as a folder that plain `from_pretrained` loads.

Output: the checkpoint with zeros where weights went, processor, model card (README.md) and
manifest.json (hash of every file).
"""

from pathlib import Path

from ecoflap import artifacts, scores
from ecoflap.export import card, precision
from ecoflap.pruning import changes
from ecoflap_pipeline import job
from ecoflap_pipeline.report import model_card

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, config, seed = snakemake.input, snakemake.params.config, int(snakemake.wildcards.seed)
folder = Path(snakemake.output.folder)

model = changes.load_changed(
    files.model,
    files.changes,
    device="cpu",
    donor=files.get("donor"),
    towers=config.get("towers"),
    **config["loading"],
)
precision.shorten(model, files.model)
if files.get("changes"):
    model_card.note_tokens(model, Path(files.changes).with_name("layers.parquet"))
numbers = model_card.results(files.metrics, files.dense_metrics, snakemake.params.tasks)
told = model_card.facts(
    config["card"],
    numbers,
    dtype=config["loading"]["dtype"],
    seed=seed,
    manifest=files.get("manifest"),
)
head = job.header(snakemake, "export", inputs=files)
model.save(folder)
card.write(folder, model, told)
artifacts.write_manifest(folder, head, scores.matrix_table(model).to_dict("records"))
log.info("%s: %.1f MiB", folder, sum(f.stat().st_size for f in folder.iterdir()) / 2**20)
