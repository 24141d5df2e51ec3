"""Prunes with several plans and keeps the one that loses least on held-out samples.

Output: JSON with a row per plan (candidate, strength, held-out loss, chosen), the settings of the
chosen one, what the choice cost, and where weights were exchanged afterwards the plan itself.
"""

from ecoflap import artifacts, models
from ecoflap.data import sampling
from ecoflap.pruning import choosing, exchanging
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
config = params.config
seed = int(wildcards.seed)

model = models.load(artifacts.checked(files.model), device=params.device, **config["loading"])
tables = artifacts.read_scores(files.scores, files.model)
samples, _ = artifacts.read_tensors(files.samples, "calibration")
further, manifest = sampling.held_out(model, config["calibration"], seed)
batches, held_out = (sampling.batches(each, config["batch_size"]) for each in (samples, further))
with model.cost() as cost:
    choice = choosing.choose_plan(
        model,
        batches,
        held_out,
        tables,
        config["allocation"],
        sparsity=config["sparsity"],
        pruning_settings=config["pruning"],
    )
    plan = choice.plan
    if config["search"]:
        plan = exchanging.exchange(
            model,
            batches,
            held_out,
            plan,
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
    "matrices": plan.to_dict("records") if config["search"] else None,
}
artifacts.write_json(snakemake.output.choice, facts, head)
