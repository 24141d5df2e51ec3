"""Draws and encodes the calibration samples of a model.

Output: samples.safetensors (tensors [samples, ...]) and manifest.json (ids, texts, fingerprint);
and what the drawing cost (JSON).
"""

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
config, seed = snakemake.params.config, snakemake.params.point["seed"]

loading = {key: value for key, value in config.items() if key != "calibration"}
model = models.load(
    artifacts.checked(snakemake.input.model), device=snakemake.params.device, **loading
)
with model.cost() as cost:
    tensors, manifest = sampling.collect(model, config["calibration"], seed)
log.info("%s", {name: tuple(tensor.shape) for name, tensor in tensors.items()})

head = job.header(
    snakemake,
    "calibration",
    inputs=[snakemake.input.model],
    device=str(model.device),
    fingerprint=manifest["fingerprint"],
)
artifacts.write_tensors(snakemake.output.samples, tensors, head)
artifacts.write_json(snakemake.output.manifest, manifest, head)
facts = {**snakemake.params.point, **cost.as_dict()}
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
