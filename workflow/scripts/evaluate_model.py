"""Evaluates a dense or pruned model on the tasks of a suite.

Output: the predictions of all tasks (parquet), the metrics computed from them, and what the
evaluation cost (JSON).
"""

from ecoflap import artifacts, models, pruning, runtime
from ecoflap.evaluation.suite import evaluate

log = runtime.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, point, config = snakemake.input, snakemake.params.point, snakemake.params.config

model = models.load(
    artifacts.checked(files.model), device=snakemake.params.device, **config["loading"]
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
    config=config,
    device=str(model.device),
    inputs=artifacts.input_hashes(files),
)
with model.cost() as cost:
    predictions, numbers = evaluate(model, config["tasks"])

artifacts.write_table(snakemake.output.predictions, predictions, head)
facts = {key: point[key] for key in ("model", "variant", "sparsity", "seed")}
artifacts.write_json(
    snakemake.output.metrics, {**facts, "metrics": numbers}, {**head, "kind": "metrics"}
)
artifacts.write_json(snakemake.output.cost, {**point, **cost.as_dict()}, {**head, "kind": "cost"})
