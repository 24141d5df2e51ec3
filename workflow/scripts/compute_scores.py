"""Scores every prunable matrix by its effect on the loss of the whole model.

Output: one row per matrix (parquet), and what the scoring cost (JSON).
"""

from ecoflap import artifacts, calibration, models, runtime, scores

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
settings, seed = dict(snakemake.params.settings), int(snakemake.wildcards.seed)

model = models.load(
    artifacts.checked(snakemake.input.model),
    dtype=snakemake.params.dtype,
    device=snakemake.params.device,
    blocks=snakemake.params.blocks,
    offload=snakemake.params.offload,
)
samples, _ = artifacts.read_tensors(snakemake.input.samples, "calibration")
head = artifacts.header(
    "scores",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=settings,
    seed=seed,
    device=str(model.device),
    inputs=artifacts.input_hashes(dict(snakemake.input.items())),
)
batches = calibration.batches(samples, settings.pop("batch_size"), settings.pop("samples"))
with model.cost() as cost:
    table = scores.score(model, batches, seed=seed, **settings)
log.info("%d matrices in %.1f s", len(table), cost.seconds)

artifacts.write_table(snakemake.output.scores, table, head)
point = {key: snakemake.wildcards[key] for key in ("model", "calibration", "score")}
facts = {**point, "seed": seed, **cost.as_dict()}
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
