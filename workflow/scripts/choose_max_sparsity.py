"""Prunes with several p_max and keeps the one that loses least on held-out samples.

Output: JSON with a row per margin (p_max, held-out loss, chosen), the held-out samples' ids, and
what the choice cost.
"""

from ecoflap import artifacts, calibration, margins, models, runtime

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
config = params.config
seed, sparsity = int(wildcards.seed), config["sparsity"]

model = models.load(artifacts.checked(files.model), device=params.device, **config["loading"])
table, _ = artifacts.read_table(files.scores, "scores")
samples, _ = artifacts.read_tensors(files.samples, "calibration")
further, manifest = calibration.held_out(model, config["calibration"], seed)
settings = {k: v for k, v in config["allocation"].items() if k != "max_sparsity"}
if settings.pop("budget", "model") == "tower":
    sparsity = dict.fromkeys(table["tower"], sparsity)
with model.cost() as cost:
    choice = margins.choose_max_sparsity(
        model,
        calibration.batches(samples, config["batch_size"]),
        calibration.batches(further, config["batch_size"]),
        table,
        sparsity=sparsity,
        allocation_settings=settings,
        pruning_settings=config["pruning"],
    )

head = artifacts.header(
    "margins",
    rule=snakemake.rule,
    code=params.code,
    config=config,
    seed=seed,
    device=str(model.device),
    inputs=artifacts.input_hashes(files),
    fingerprint=manifest["fingerprint"],
)
facts = {key: wildcards[key] for key in ("model", "variant", "sparsity")}
rows = choice.assign(loss=choice["loss"].map(artifacts.json_number)).to_dict("records")
facts |= {"seed": seed, **cost.as_dict(), "margins": rows}
artifacts.write_json(snakemake.output.margins, facts, head)
