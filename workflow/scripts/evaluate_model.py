"""Evaluates a dense or pruned model on the tasks of a suite.

Output: the predictions of all tasks (parquet), and the metrics computed from them (JSON).
"""

from ecoflap import artifacts, models, pruning, runtime
from ecoflap.evaluation.suite import evaluate

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, wildcards = snakemake.input, snakemake.wildcards

model = models.load(
    artifacts.checked(files.model),
    dtype=snakemake.params.dtype,
    device=snakemake.params.device,
    blocks=snakemake.params.blocks,
)
if files.get("changes"):
    donor = files.get("donor")
    pruning.apply_changes(
        model,
        files.changes,
        artifacts.file_hash(donor or files.model),
        towers=["vision"] if donor else None,
    )
head = artifacts.header(
    "predictions",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=snakemake.params.tasks,
    device=str(model.device),
    inputs=artifacts.input_hashes(dict(files.items())),
)
predictions, numbers = evaluate(model, snakemake.params.tasks)

artifacts.write_table(snakemake.output.predictions, predictions, head)
point = {key: wildcards[key] for key in ("model", "variant", "sparsity")}
point["seed"] = int(wildcards.seed)
artifacts.write_json(
    snakemake.output.metrics, {**point, "metrics": numbers}, {**head, "kind": "metrics"}
)
