"""Prunes with several plans and keeps the one that loses least on held-out samples.

Output: JSON with a row per plan (candidate, strength, held-out loss, chosen), the settings of the
chosen one, and what the choice cost.
"""

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap.pruning import choosing
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
config = params.config
seed = int(wildcards.seed)

model = models.load(artifacts.checked(files.model), device=params.device, **config["loading"])
tables = artifacts.read_scores(files.scores, files.model)
samples, _ = artifacts.read_tensors(files.samples, "calibration")
further, manifest = sampling.held_out(model, config["calibration"], seed)
with model.cost() as cost:
    choice = choosing.choose_plan(
        model,
        sampling.batches(samples, config["batch_size"]),
        sampling.batches(further, config["batch_size"]),
        tables,
        config["allocation"],
        sparsity=config["sparsity"],
        pruning_settings=config["pruning"],
    )

head = job.header(
    snakemake, "choice", inputs=files, device=str(model.device), fingerprint=manifest["fingerprint"]
)
rows = choice.rows.assign(loss=choice.rows["loss"].map(artifacts.json_number)).to_dict("records")
facts = {
    **job.point(snakemake),
    **cost.as_dict(),
    "plans": rows,
    "settings": choice.settings,
}
artifacts.write_json(snakemake.output.choice, facts, head)
