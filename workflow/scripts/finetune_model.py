"""Trains a pruned model; what was pruned stays zero. A killed job goes on from its last stop.

Output: all weights that were trained, a row per matrix, the training curve, and what it cost.
"""

from pathlib import Path

from ecoflap import artifacts, models
from ecoflap.finetuning import training
from ecoflap.pruning import changes
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
head = artifacts.header(
    "pruned",
    rule=snakemake.rule,
    code=params.code,
    config=config,
    seed=seed,
    device=str(model.device),
    inputs=artifacts.input_hashes([files.model, files.pruned, *files.datasets]),
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
removed = sum(zeros.values())
facts = {
    **{key: wildcards[key] for key in ("model", "variant", "sparsity")},
    "from": params.source,
    "seed": seed,
    **cost.as_dict(),
    "achieved_sparsity": removed / layers["n_weights"].sum(),
    "whole_model_sparsity": removed / sum(p.numel() for p in model.module.parameters()),
}
artifacts.write_json(snakemake.output.cost, facts, {**head, "kind": "cost"})
checkpoint.unlink(missing_ok=True)
