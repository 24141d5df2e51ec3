"""Prunes with several p_max and keeps the one that loses least on held-out samples.

Output: JSON with a row per margin (p_max, held-out loss, chosen), the held-out samples' ids, and
what the choice cost.
"""

from ecoflap import artifacts, calibration, margins, models, runtime

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
seed, sparsity = int(wildcards.seed), wildcards.sparsity

model = models.load(
    artifacts.checked(files.model),
    dtype=params.dtype,
    device=params.device,
    blocks=params.blocks,
    offload=params.offload,
)
table, _ = artifacts.read_table(files.scores, "scores")
samples, _ = artifacts.read_tensors(files.samples, "calibration")
further, manifest = calibration.held_out(model, params.calibration, seed)
settings = {key: params.allocation[key] for key in params.allocation if key != "max_sparsity"}
if settings.pop("budget", "model") == "tower":
    sparsity = dict.fromkeys(table["tower"], sparsity)
with model.cost() as cost:
    choice = margins.choose_max_sparsity(
        model,
        calibration.batches(samples, params.batch_size),
        calibration.batches(further, params.batch_size),
        table,
        sparsity=sparsity,
        allocation_settings=settings,
        pruning_settings=params.pruning,
    )

head = artifacts.header(
    "margins",
    rule=snakemake.rule,
    code=params.code,
    config={"allocation": settings, "pruning": params.pruning, "calibration": params.calibration},
    seed=seed,
    device=str(model.device),
    inputs=artifacts.input_hashes(dict(files.items())),
    fingerprint=manifest["fingerprint"],
)
facts = {key: wildcards[key] for key in ("model", "variant", "sparsity")}
facts |= {"seed": seed, **cost.as_dict(), "margins": choice.to_dict("records")}
artifacts.write_json(snakemake.output.margins, facts, head)
