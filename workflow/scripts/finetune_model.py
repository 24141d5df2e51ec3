"""Trains a pruned model; what was pruned stays zero. A killed job goes on from its last stop.

Output: all weights that were trained, a row per matrix, the training curve, and what it cost.
"""

from pathlib import Path

from ecoflap import artifacts, models
from ecoflap.finetuning import training
from ecoflap.pruning import changes
from ecoflap.pruning.method import removed
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
config, seed = params.config, int(wildcards.seed)

folder = artifacts.checked(files.model)
dense = artifacts.file_hash(files.model)
model = models.load(folder, device=params.device, **config["loading"])
changes.apply_changes(model, files.pruned, dense)
layers, _ = artifacts.read_table(Path(files.pruned).with_name("layers.parquet"), "layers")
teacher = None
if "distillation" in config["finetuning"]:
    teacher = models.load(folder, device=params.device, **config["loading"])
head = job.header(
    snakemake,
    "pruned",
    inputs=[files.model, files.pruned, *files.datasets],
    device=str(model.device),
    dense=dense,
)
checkpoint = Path(snakemake.output.changes).with_name("checkpoint.safetensors")
with model.cost() as cost:
    curve = training.finetune(
        model,
        config["finetuning"],
        seed=seed,
        teacher=teacher,
        batch_size=config["batch_size"],
        checkpoint=checkpoint,
        head=head,
        cost=cost,
    )

trained = training.trained_beside_matrices(model, config["finetuning"])
changes.save_changes(model, snakemake.output.changes, head, updates_weights=True, further=trained)
zeros = {m.name: int((m.module.weight == 0).sum()) for m in model.matrices()}
layers["achieved_sparsity"] = layers["name"].map(zeros) / layers["n_weights"]
artifacts.write_table(snakemake.output.layers, layers, {**head, "kind": "layers"})
artifacts.write_table(snakemake.output.curve, curve, {**head, "kind": "curve"})
facts = {**job.point(snakemake), "from": params.source, **cost.as_dict(), **removed(model, layers)}
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
checkpoint.unlink(missing_ok=True)
