"""Draws and encodes the calibration samples of a model.

Output: samples.safetensors (tensors [samples, ...]) and manifest.json (ids, texts, fingerprint).
"""

from ecoflap import artifacts, calibration, models, runtime

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
settings, seed = snakemake.params.settings, int(snakemake.wildcards.seed)

model = models.load(
    artifacts.checked(snakemake.input.model), device="cpu", blocks=snakemake.params.blocks
)
tensors, manifest = calibration.collect(model, settings, seed)
log.info("%s", {name: tuple(tensor.shape) for name, tensor in tensors.items()})

head = artifacts.header(
    "calibration",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=settings,
    seed=seed,
    inputs=artifacts.input_hashes({"model": snakemake.input.model}),
    fingerprint=manifest["fingerprint"],
)
artifacts.write_tensors(snakemake.output.samples, tensors, head)
artifacts.write_json(snakemake.output.manifest, manifest, head)
