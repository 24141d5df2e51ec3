"""A pruned model as a checkpoint of its own: its number format, and what its card says."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from ecoflap import artifacts, card, collect
from ecoflap.card import Facts, Result
from ecoflap.models.base import Model

SHORT = {"F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors calls them


@torch.no_grad()
def shorten(model: Model, dense: str | Path) -> None:
    """Gives weights of 32 bits the 16 bits of the dense checkpoint if that changes no weight.

    A model that was loaded as float32 and lost weights needs no more bits than it came with; one
    whose weights were updated does.

    Args:
        model: Changed in place.
        dense: The folder that it was loaded from.
    """
    kinds = set()
    for path in Path(dense).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    found = {kind for kind in kinds if kind.startswith(("F", "BF"))}
    short = SHORT.get(found.pop()) if len(found) == 1 else None
    tensors = [t for t in model.module.state_dict().values() if t.is_floating_point()]
    if short and all(torch.equal(t.to(short).to(t.dtype), t) for t in tensors):
        model.module.to(short)


def facts(
    settings: Mapping,
    results: list[Result],
    *,
    dtype: str,
    seed: int,
    manifest: str | Path | None,
) -> Facts:
    """Gathers what a card says.

    Args:
        settings: Model, variant, score, calibration, sparsity, fine-tuning and what was fine-tuned,
            as `settings.export_checkpoint` gives them.
        results: What `results` returned.
        dtype: Number format in which the model was evaluated.
        seed: Calibration seed.
        manifest: Of the calibration samples; None if none were used.
    """
    model, variant, source = settings["model"], settings["variant"], settings["model"]["source"]
    base = source.get("hub") or card.base_name(source.get("folder"))
    base = base or f"{source['pypi']} ({source['gguf']})"
    method = {"sparsity": settings["sparsity"], "variant": variant["label"]}
    method |= {key: str(value) for key, value in variant.items() if key != "label"}
    if "score" in settings:
        method["score"] += f" ({card.listed(settings['score'])})"
    if tuning := settings.get("finetuning"):
        method["fine-tuned from"] = settings["from"]
        method |= card.fine_tuning({**tuning, "seed": seed})
    return Facts(
        name=f"{model['label']}, {variant['label']}, sparsity {settings['sparsity']}",
        base=base,
        revision=source.get("revision"),
        licence=model.get("licence"),
        method=method,
        calibration=_calibration(settings, seed, manifest) if manifest else "",
        dtype=dtype,
        results=results,
    )


def _calibration(settings: Mapping, seed: int, manifest: str | Path) -> str:
    drawn = artifacts.read_json(manifest, "calibration")
    described = card.samples(settings["calibration"])
    return f"{described}, drawn with seed {seed} (fingerprint {drawn['fingerprint']})"


def results(files: Iterable[str], dense: Iterable[str], tasks: Mapping) -> list[Result]:
    """Reads the numbers of a model and of the dense one.

    Args:
        files: Metrics files of the model.
        dense: Those of the dense model.
        tasks: Their tasks, as the configuration has them.
    """
    if not (files := list(files)):
        return []
    beside = {
        (row.task, row.metric): (row.value, row.standard_error) for row in _whole_tasks(dense)
    }
    found = []
    for row in _whole_tasks(files):
        task = tasks[row.task]
        used = task.get("dataset", {"name": row.task, "split": "test", "view": task["kind"]})
        found.append(
            Result(
                task=task["label"],
                kind=task["kind"],
                dataset=(used["name"], used["split"], used["view"]),
                metric=row.metric,
                value=row.value,
                error=row.standard_error,
                dense=beside.get((row.task, row.metric)),
                note=row.note,
            )
        )
    return found


def _whole_tasks(files: Iterable[str]) -> Iterable:
    frame = collect.metrics(files)
    return frame[frame["subset"] == ""].itertuples()
