"""What the model card of an exported model says, from the configuration and the results."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ecoflap import artifacts
from ecoflap.export import card
from ecoflap.export.card import Facts, Result
from ecoflap.models.model import Model
from ecoflap_pipeline.report import collect


def note_tokens(model: Model, layers: str | Path) -> None:
    """Has a model's card tell its calibration tokens per input feature.

    Args:
        model: Its ``tokens_per_feature`` are filled where it was pruned and the criterion read
            inputs.
        layers: The report of the pruning.
    """
    report, _ = artifacts.read_table(layers, "layers")
    tokens = report[report["name"].isin(model.masks)].dropna(subset="tokens_per_feature")
    model.tokens_per_feature = dict(zip(tokens["name"], tokens["tokens_per_feature"], strict=True))


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
    method |= {key: _words(value) for key, value in variant.items() if key != "label"}
    for name, score in settings.get("scores", {}).items():
        key = "score" if variant.get("score") == name else f"score {name}"
        method[key] = f"{name} ({card.listed(score)})"
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


def _words(value: object) -> str:
    """Returns a setting as a reader sees it: that of a candidate or of an allocation inside too."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    return "; ".join(map(_words, value)) if isinstance(value, list) else str(value)


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
