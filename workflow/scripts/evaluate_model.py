"""Evaluates a dense or pruned model on the tasks of a suite.

Output: the predictions of all tasks (parquet), and the metrics computed from them (JSON).
"""

import pandas as pd

from ecoflap import artifacts, models, pruning, runtime
from ecoflap.evaluation import metrics, tasks

log = runtime.start_job(snakemake.log[0], snakemake.threads)
files, wildcards = snakemake.input, snakemake.wildcards

model = models.load(files.model, dtype=snakemake.params.dtype, device=snakemake.params.device)
if files.get("changes"):
    pruning.apply_changes(model, files.changes, artifacts.file_hash(files.model))
head = artifacts.header(
    "predictions",
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=snakemake.params.tasks,
    device=str(model.device),
    inputs=artifacts.input_hashes(dict(files.items())),
)
predictions, numbers = [], []
for name, task in snakemake.params.tasks.items():
    frame = tasks.predict(model, task)
    predictions.append(frame.assign(task=name))
    numbers += [{"task": name, **row} for row in metrics.compute(task["kind"], frame)]
    log.info("%s: %s", name, numbers[-1])

artifacts.write_table(snakemake.output.predictions, pd.concat(predictions), head)
point = {key: wildcards[key] for key in ("model", "variant", "sparsity")}
point["seed"] = int(wildcards.seed)
artifacts.write_json(
    snakemake.output.metrics, {**point, "metrics": numbers}, {**head, "kind": "metrics"}
)
