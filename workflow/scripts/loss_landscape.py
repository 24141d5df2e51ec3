"""Computes the loss of a model on a grid around its dense weights.

Output: one row per grid point (parquet): x, y, loss.
"""

from ecoflap import artifacts, calibration, models, runtime
from ecoflap.landscape import loss_landscape

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params = snakemake.input, snakemake.params
settings = dict(params.settings)

model = models.load(artifacts.checked(files.model), device=params.device, **params.loading)
samples, _ = artifacts.read_tensors(files.samples, "calibration")
batches = calibration.batches(samples, settings.pop("batch_size"), settings.pop("samples"))
head = artifacts.header(
    "landscape",
    rule=snakemake.rule,
    code=params.code,
    config=params.settings,
    seed=params.seed,
    device=str(model.device),
    inputs=artifacts.input_hashes(dict(files.items())),
)
with model.cost() as cost:
    table = loss_landscape(model, batches, seed=params.seed, **settings)
log.info("%d losses in %.1f s", len(table), cost.seconds)
artifacts.write_table(snakemake.output.landscape, table, {**head, **cost.as_dict()})
