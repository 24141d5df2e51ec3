"""The model card of a pruned model: a README.md with metadata that the hub reads."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecoflap.data import mixes
from ecoflap.export.markup import code, markdown
from ecoflap.plugins import METRIC_LABELS, TASKS

if TYPE_CHECKING:
    import torch
    from huggingface_hub import ModelCardData

    from ecoflap.models.model import Model

HUB_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
# Licences that the hub knows by these names; any other is `other` with its own words.
LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0")
# What the hub calls our kinds of tasks.
TOKENS_COUNTED = {
    "all": "",
    "text": ", image tokens of the language tower left out of the statistics",
    "drift": ", of the image tokens of the language tower those that drift most",
}
DENSE_SIZE = (
    "What `from_pretrained` loads are dense tensors of {dtype} with zeros in them: as large as the "
    "dense model in {dtype}, on the disk and in memory; zstd makes the files smaller. It runs "
    "as fast as that one, because plain "
    "transformers multiplies zeros like other numbers; few runtimes do otherwise."
)
TWO_FOUR = (
    "Its 2:4 pattern is what the sparse tensor cores of NVIDIA GPUs take, from compute capability "
    "8.0 on: `ecoflap.export.semi_structured.to_semi_structured` turns the matrices into torch's "
    "semi-structured tensors. They are smaller; whether they are faster depends on their shapes "
    "and the batch."
)
TOKENS = (
    " Tokens per feature: calibration tokens that the pruning pass read for each input feature of "
    "a matrix, without padding, of the matrix with the fewest."
)


@dataclass(frozen=True)
class Result:
    """One number of this model beside the dense model's.

    Attributes:
        task: Its name for a reader.
        kind: Kind of task, as in the registry.
        dataset: Name of the data set, its split and what is read of it.
        metric: As in ``metrics.json``.
        value: In percent, except perplexity; NaN if it is not defined.
        error: Standard error; NaN if unknown.
        dense: The dense model's value and error; None if it was not measured.
        note: What is to know of the number.
    """

    task: str
    kind: str
    dataset: tuple[str, str, str]
    metric: str
    value: float
    error: float
    dense: tuple[float, float] | None
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """What a card says, as plain text.

    Attributes:
        name: Heading.
        base: The dense model: a hub id, a folder, or a package.
        revision: The commit of a hub id.
        licence: Of the dense model, in the words of the configuration; None if not stated.
        method: What was done, name to value.
        calibration: What the samples were; empty if none were used.
        dtype: Number format in which it was evaluated; the model's own if None.
        results: Numbers of this model.
    """

    name: str
    base: str | None
    revision: str | None = None
    licence: str | None = None
    method: Mapping[str, str] = field(default_factory=dict)
    calibration: str = ""
    dtype: str | None = None
    results: Sequence[Result] = ()


def write(folder: str | Path, model: "Model", facts: Facts | None = None) -> None:
    """Writes the card of a model into the folder where it was saved.

    Args:
        folder: Gets ``README.md``.
        model: The pruned model.
        facts: What is known of it; by default where it was loaded from, and its ``history``.
    """
    facts = facts or Facts(
        name=f"Pruned {type(model.module).__name__}",
        base=base_name(model.source),
        method=_done(model.history),
    )
    Path(folder, "README.md").write_text(text(facts, model), encoding="utf-8")


def base_name(source: str | None) -> str | None:
    """Returns a hub id, or the name of a folder, whose place is nobody else's concern."""
    return Path(source).resolve().name if source and Path(source).exists() else source


def _done(history: Sequence[tuple[str, Mapping]]) -> dict[str, str]:
    """Returns what was done, name to value; what came again has the number of its step."""
    method: dict[str, str] = {}
    for number, (kind, settings) in enumerate(history, start=1):
        told = fine_tuning(settings) if kind == "fine-tuning" else settings
        for key, value in told.items():
            method[f"{key} (step {number})" if key in method else key] = str(value)
    return method


def fine_tuning(settings: Mapping) -> dict[str, str]:
    """Returns what a card says of fine-tuning, name to value.

    Args:
        settings: What `ecoflap.finetune` was given, and ``seed``.
    """
    told = listed({key: value for key, value in settings.items() if key != "data"})
    return {
        "fine-tuning": f"AdamW, cosine to zero, {told}",
        "fine-tuned on": "; ".join(samples(part) for part in settings["data"]),
    }


def listed(entry: Mapping) -> str:
    """Returns settings as one line."""
    return ", ".join(f"{key} {value}" for key, value in entry.items())


def samples(entry: Mapping) -> str:
    """Returns what samples are, for an entry of config/calibrations.yaml or of fine-tuning data."""
    told = " and ".join(_part(part) for part in mixes.parts_of(entry))
    if entry.get("targets", "data") == "generated":
        told += ", with the dense model's own answers as targets"
    return told + TOKENS_COUNTED[entry.get("tokens", "all")]


def _part(entry: Mapping) -> str:
    used = entry["dataset"]
    left_out = f" but {entry['held_out']}" if entry.get("held_out") else ""
    count = entry.get("samples", f"all{left_out}")
    window = f" of {entry['window']} tokens" if "window" in entry else ""
    limit = f"{used['limit']} random examples of " if "limit" in used else ""
    return (
        f"{count} samples{window} of {limit}{used['name']}, split {used['split']}, "
        f"{used['view']}, as {entry['format']}"
    )


def text(facts: Facts, model: "Model") -> str:
    """Returns the card of a model."""
    from huggingface_hub import ModelCard

    zeros = _zeros(model)
    dtype = next(model.module.parameters()).dtype
    parts = [
        f"# {markdown(facts.name)}",
        _intro(facts),
        "## Sparsity",
        _sparsity(zeros, model),
        "Zeros in the prunable matrices of each tower, and in all weights of the model."
        + TOKENS * bool(model.tokens_per_feature),
    ]
    if facts.method or facts.calibration:
        told = [*facts.method.items()]
        told += [("calibration", facts.calibration)] if facts.calibration else []
        rows = [f"- {markdown(name)}: {markdown(value)}" for name, value in told]
        parts += ["## Method", "\n".join(rows)]
    if facts.results:
        parts += ["## Results", _results(facts.results)]
    parts += ["## How to load it", _loading(facts, model)]
    parts += ["## What is smaller and faster, and what is not"]
    parts += [DENSE_SIZE.format(dtype=_plain(dtype))]
    parts += [TWO_FOUR] if facts.method.get("pattern") == "2:4" else []
    body = "\n\n".join(parts)
    return str(ModelCard(f"---\n{_metadata(facts, model).to_yaml()}\n---\n\n{body}\n"))


def _intro(facts: Facts) -> str:
    revision = f" (revision {code(facts.revision)})" if facts.revision else ""
    base = f"{code(facts.base)}{revision}" if facts.base else "A model built in Python"
    done = "pruned and fine-tuned" if "fine-tuning" in facts.method else "pruned"
    return (
        f"{base}, {done} with ecoflap, a pipeline around *ECoFLaP: Efficient Coarse-to-Fine "
        "Layer-Wise Pruning for Vision-Language Models* (Sung, Yoon, Bansal, ICLR 2024). "
        f"Licence of the dense model: {markdown(facts.licence or 'not stated')}."
    )


def _zeros(model: "Model") -> list[tuple[str, int, int]]:
    """Returns the tower, zeros and weights of each prunable matrix, wherever its weights wait."""
    found = []
    for matrix in model.resident_matrices():
        gone = matrix.n_weights - int(matrix.module.weight.count_nonzero())
        found.append((matrix.tower, gone, matrix.n_weights))
    return found


def _sparsity(zeros: list[tuple[str, int, int]], model: "Model") -> str:
    towers = dict.fromkeys(tower for tower, _, _ in zeros)
    parts = [(tower, [part for part in zeros if part[0] == tower]) for tower in towers]
    rows = [
        (name, sum(gone for _, gone, _ in part), sum(n for _, _, n in part))
        for name, part in [*parts, ("all prunable", zeros)]
    ]
    rows.append(("whole model", rows[-1][1], sum(p.numel() for p in model.module.parameters())))
    cells = [["Part", "Zeros", "Weights", "Sparsity"], ["---"] * 4]
    cells += [[markdown(name), f"{n:,}", f"{size:,}", f"{n / size:.1%}"] for name, n, size in rows]
    if model.tokens_per_feature:
        least = _fewest_tokens(model)
        column = ["Tokens per feature", "---", *(_tokens(least.get(tower)) for tower in towers)]
        column += [_tokens(min(least.values())), ""]
        cells = [[*row, cell] for row, cell in zip(cells, column, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _fewest_tokens(model: "Model") -> dict[str, float]:
    """Returns the calibration tokens per input feature of each tower's matrix with the fewest."""
    least: dict[str, float] = {}
    for matrix in model.matrices():
        if matrix.name in model.tokens_per_feature:
            tokens = model.tokens_per_feature[matrix.name]
            least[matrix.tower] = min(tokens, least.get(matrix.tower, tokens))
    return least


def _tokens(count: float | None) -> str:
    return "" if count is None else f"{count:.2f}"


def _results(results: Sequence[Result]) -> str:
    lines = ["| Task | Metric | Dense | This model |", "| --- | --- | --- | --- |"]
    for result in results:
        dense = _number(*result.dense) if result.dense else ""
        measured = _number(result.value, result.error)
        measured += f" ({markdown(result.note)})" if result.note else ""
        metric = METRIC_LABELS[result.metric]
        lines.append(f"| {markdown(result.task)} | {metric} | {dense} | {measured} |")
    note = "± standard error over the test items. Percent (CIDEr x 100), except perplexity."
    return "\n".join([*lines, "", note])


def _number(value: float, error: float) -> str:
    if math.isnan(value):
        return "not defined"
    return f"{value:.1f}" + ("" if math.isnan(error) else f" ± {error:.1f}")


def _plain(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _loading(facts: Facts, model: "Model") -> str:
    """Returns lines that load the model as it was evaluated, in the folder that holds it."""
    kind = type(model.module).__name__
    if not type(model.module).__module__.startswith("transformers."):
        return f"`ecoflap.load(folder)`, or {kind} of the library that it comes from."
    lines = [f"from transformers import {kind}", "", 'folder = "."  # or its id on the hub']
    dtype = facts.dtype or _plain(next(model.module.parameters()).dtype)
    lines.append(f'model = {kind}.from_pretrained(folder, dtype="{dtype}")')
    if model.processor is not None:
        auto = "AutoProcessor" if hasattr(model.processor, "tokenizer") else "AutoTokenizer"
        lines[0] = f"from transformers import {', '.join(sorted([auto, kind]))}"
        lines.append(f"processor = {auto}.from_pretrained(folder)")
    return "\n".join(["```python", *lines, "```"])


def _metadata(facts: Facts, model: "Model") -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    licence = (facts.licence or "").lower()
    known = licence in LICENCES
    other = {"license_name": re.sub(r"[^\w.]+", "-", licence).strip("-")}
    named: dict[str, Any] = (
        {} if not licence else {"license": licence} if known else {"license": "other", **other}
    )
    on_hub = facts.base and HUB_ID.fullmatch(facts.base) and not Path(facts.base).exists()
    library = type(model.module).__module__.partition(".")[0]
    results = [
        EvalResult(
            task_type=TASKS[result.kind].hub,
            task_name=result.task,
            dataset_type=result.dataset[0],
            dataset_name=result.dataset[0],
            dataset_split=result.dataset[1],
            dataset_config=result.dataset[2],
            metric_type=result.metric,
            metric_name=f"{result.task} {METRIC_LABELS[result.metric]}",
            metric_value=round(result.value, 3),
        )
        for result in facts.results
        if math.isfinite(result.value)  # the hub's index holds no other
    ]
    return ModelCardData(
        **named,
        base_model=facts.base if on_hub else None,
        library_name=library,
        tags=["pruning", "sparse", "ecoflap"],
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
