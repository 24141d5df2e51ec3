"""What each stage of a method cost, as its artifacts tell it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ecoflap import artifacts
from ecoflap_pipeline import paths, points, targets

# Whole jobs, measured by Snakemake: of rules whose artifacts do not tell what they cost.
JOBS = {
    "prepare_model": paths.MODEL_JOB,
    "check_dataset": paths.DATASET_JOB,
    "check_overlap": paths.DATASET_JOB,
    "allocate_sparsity": paths.POINT_JOB,
}
KEYS = ("seconds", "peak_memory_mb", "device", "joules")
# What makes a pruned model of a dense one: its seconds and its peak are those of the method.
METHOD = ("scoring", "choosing", "pruning", "finetuning")


class Part(NamedTuple):
    """One stage of one row of a table, and the artifact that tells what it cost."""

    model: str
    variant: str
    sparsity: str
    seed: int
    stage: str
    path: str


def parts(config: Mapping, experiment: str) -> Iterator[Part]:
    """Yields the stages of each model of an experiment, the dense ones first.

    Args:
        config: The merged configuration.
        experiment: Its name.
    """
    for point, suite in targets.evaluated(config, experiment):
        path = paths.EVALUATION_COST.at(**point._asdict(), suite=suite)
        yield Part(**point._asdict(), stage="evaluation", path=path)
    for point in points.points(config, experiment):
        for stage, path in _of_method(config, point):
            yield Part(**point._asdict(), stage=stage, path=path)


def _of_method(config: Mapping, point: points.Point) -> Iterator[tuple[str, str]]:
    name = points.pruned_as(config, point.variant)
    variant = config["variants"][name]
    model = points.pruned_model(config, point.model)
    pruned = point._replace(model=model, variant=name)
    calibration = points.calibration_of(config, pruned.model, point.variant)
    names = {**pruned._asdict(), "calibration": calibration}
    scores = points.scores_of(variant)
    if scores or points.needs_samples(variant):
        yield "calibration", paths.SAMPLES_COST.at(**names)
    for score in scores:
        yield "scoring", paths.SCORES_COST.at(**names, score=score)
    if points.is_chosen(variant):
        yield "choosing", paths.CHOICE.at(**names)
    if points.needs_plan(variant):
        yield "allocation", paths.PLAN.at(**names)
    yield "pruning", paths.PRUNE_COST.at(**names)
    if name != point.variant:
        yield "finetuning", paths.FINETUNE_COST.at(**point._asdict())


def read(path: str) -> tuple[dict, dict[str, Any] | None]:
    """Reads the header of an artifact and what its job cost.

    Returns:
        The header, and seconds, peak_memory_mb, device and, where it is known, joules; None if
        neither the artifact nor Snakemake's benchmark tells it.
    """
    artifact, names = paths.artifact_at(path)
    content = head = artifacts.read_header(path, artifact.kind)
    if path.endswith(".json"):
        content = artifacts.read_json(path, artifact.kind)
    if "seconds" in content:
        return head, {key: content[key] for key in KEYS if key in content}
    if artifact.rule not in JOBS:
        return head, None
    return head, _benchmark(paths.benchmark(artifact.rule, JOBS[artifact.rule]).format(**names))


def _benchmark(path: str) -> dict[str, Any] | None:
    if not Path(path).is_file():
        return None
    row = pd.read_csv(path, sep="\t").iloc[-1]
    return {"seconds": float(row["s"]), "peak_memory_mb": float(row["max_rss"]), "device": "cpu"}


def by_stage(stages: Iterable[Part]) -> pd.DataFrame:
    """Sets what the stages of each model cost beside each other, averaged over seeds.

    Args:
        stages: What `parts` yielded.

    Returns:
        Per model, variant and sparsity: ``<stage>_seconds``; seconds and peak_memory_mb of
        scoring, choosing, pruning and fine-tuning; gpu_hours and joules of all stages, joules only
        where all that ran on a GPU know them. NaN where a model has no such stage.
    """
    known = {path: read(path)[1] for path in dict.fromkeys(part.path for part in stages)}
    rows: dict[tuple, dict[str, list[dict]]] = {}
    for part in stages:
        if cost := known[part.path]:
            rows.setdefault(part[:4], {}).setdefault(part.stage, []).append(cost)
    frame = pd.DataFrame(_row(point, found) for point, found in rows.items())
    keys = ["model", "variant", "sparsity"]
    return frame.groupby(keys, sort=False, as_index=False).mean().drop(columns="seed")


def _row(point: tuple, found: Mapping[str, list[dict]]) -> dict:
    costs = [cost for stage in found.values() for cost in stage]
    method = [cost for stage in METHOD for cost in found.get(stage, [])]
    on_gpu = [cost for cost in costs if cost["device"].startswith("cuda")]
    told = on_gpu and all("joules" in cost for cost in on_gpu)
    return {
        **dict(zip(Part._fields, point, strict=False)),
        **{
            f"{stage}_seconds": sum(cost["seconds"] for cost in listed)
            for stage, listed in found.items()
        },
        "seconds": sum(cost["seconds"] for cost in method) if method else float("nan"),
        "peak_memory_mb": max((cost["peak_memory_mb"] for cost in method), default=float("nan")),
        "gpu_hours": sum(cost["seconds"] for cost in on_gpu) / 3600,
        "joules": sum(cost["joules"] for cost in on_gpu) if told else float("nan"),
    }
