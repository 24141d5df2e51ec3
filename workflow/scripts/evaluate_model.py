"""Evaluates a dense or pruned model on the tasks of a suite.

Output: the predictions of all tasks (parquet), the metrics computed from them with how texts were
generated, and what the evaluation cost (JSON).
"""

from ecoflap import artifacts
from ecoflap.evaluation.pictures import check_tasks
from ecoflap.evaluation.suite import decoding, evaluate
from ecoflap.pruning import changes
from ecoflap_pipeline import job

log = job.start_job(snakemake.log[0], snakemake.threads, snakemake.params.python)
files, point, config = snakemake.input, snakemake.params.point, snakemake.params.config

model = changes.load_changed(
    files.model,
    files.get("changes"),
    device=snakemake.params.device,
    donor=files.get("donor"),
    towers=config.get("towers"),
    check=lambda dense: check_tasks(dense, config["tasks"]),
    **config["loading"],
)
head = job.header(snakemake, "predictions", inputs=files, device=str(model.device))
with model.cost() as cost:
    predictions, numbers = evaluate(model, config["tasks"])

artifacts.write_table(snakemake.output.predictions, predictions, head)
facts = {
    **job.point(snakemake),
    "decoding": decoding(model, config["tasks"]),
    "metrics": numbers,
}
artifacts.write_json(snakemake.output.metrics, facts, {**head, "kind": "metrics"})
artifacts.write_json(snakemake.output.cost, {**point, **cost.as_dict()}, {**head, "kind": "cost"})
