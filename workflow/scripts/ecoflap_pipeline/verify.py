"""Looks at every artifact of a results folder: is it whole, and is it what would be made today?"""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ecoflap import artifacts
from ecoflap.errors import ArtifactError, ConfigError
from ecoflap_pipeline import params, targets
from ecoflap_pipeline.code import code_of

ANY = {
    "seed": "[0-9]+",
    "sparsity": "0[.](?:0|[0-9]*[1-9])",
}  # what a wildcard stands for in a path
# Path, kind, and the rule whose settings it rests on.
ARTIFACTS = (
    ("results/models/{model}/manifest.json", "model", "prepare_model"),
    ("results/datasets/{dataset}/{split}/{view}.json", "dataset", "check_dataset"),
    ("results/overlaps/{dataset}/{split}/{view}.json", "overlap", "check_overlap"),
    (targets.DOWNLOAD, "download", "fetch_task"),
    (targets.SAMPLES, "calibration", "extract_calibration"),
    (targets.beside(targets.SAMPLES, "manifest.json"), "calibration", "extract_calibration"),
    (targets.beside(targets.SAMPLES, "cost.json"), "cost", "extract_calibration"),
    (targets.SCORES, "scores", "compute_scores"),
    (targets.SCORE_COST, "cost", "compute_scores"),
    (targets.PLAN, "allocation", "allocate_sparsity"),
    (targets.CHOICE, "choice", "choose_plan"),
    (targets.CHANGES, "pruned", "prune_model"),
    (targets.LAYERS, "layers", "prune_model"),
    (targets.PRUNE_COST, "cost", "prune_model"),
    (targets.FINETUNED, "pruned", "finetune_model"),
    (targets.beside(targets.FINETUNED, "layers.parquet"), "layers", "finetune_model"),
    (targets.CURVE, "curve", "finetune_model"),
    (targets.FINETUNE_COST, "cost", "finetune_model"),
    (targets.METRICS, "metrics", "evaluate_model"),
    (targets.beside(targets.METRICS, "predictions.parquet"), "predictions", "evaluate_model"),
    (targets.beside(targets.METRICS, "cost.json"), "cost", "evaluate_model"),
    (targets.LANDSCAPE, "landscape", "loss_landscape"),
    (f"{targets.EXPORT}/manifest.json", "export", "export_checkpoint"),
)
FOLDERS = ("model", "export")  # kinds whose manifest tells the hash of each file
DAMAGED, STALE, UNKNOWN, WHOLE = "damaged", "out of date", "not in this config", "whole"


class Found(NamedTuple):
    """One artifact.

    Attributes:
        path: The file.
        state: ``damaged``, ``out of date``, ``not in this config``, or ``whole``.
        why: What is wrong with it.
        versions: Of Python and the libraries that made it.
    """

    path: Path
    state: str
    why: str = ""
    versions: Mapping[str, str] = {}


def recognised(path: str) -> tuple[str, str, dict[str, str]] | None:
    """Returns the kind of an artifact, the rule that makes it and its wildcards, by its path."""
    for template, kind, rule in ARTIFACTS:
        folder = template.removesuffix("/manifest.json")  # inputs name a checkpoint's folder
        for pattern in (_pattern(template), _pattern(folder)):
            if match := pattern.fullmatch(path):
                return kind, rule, match.groupdict()
    return None


def verify(config: Mapping, scripts: Path) -> Iterator[Found]:
    """Yields every artifact in ``results`` of the working directory.

    Args:
        config: The merged configuration, defaults filled in.
        scripts: The folder of the rules' scripts.
    """
    for template, kind, rule in ARTIFACTS:
        pattern = _pattern(template)
        for path in sorted(Path().glob(re.sub(r"{\w+}", "*", template))):
            if match := pattern.fullmatch(path.as_posix()):
                yield _look(path, kind, rule, match.groupdict(), config, scripts)


@functools.cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"{(\w+)}", _group, template.replace(".", "[.]")))


def _group(match: re.Match) -> str:
    return f"(?P<{match[1]}>{ANY.get(match[1], '[^/]+')})"


def _look(
    path: Path, kind: str, rule: str, names: Mapping[str, str], config: Mapping, scripts: Path
) -> Found:
    try:
        head = artifacts.read_header(path, kind)
        if kind in FOLDERS:
            artifacts.checked(path.parent, kind)
        if kind == "pruned":
            _check_sparsity(path)
        if rule == "finetune_model" and kind == "pruned":
            _check_masks(path, head)
    except ArtifactError as error:
        return Found(path, DAMAGED, str(error))
    try:
        expected = params.RULES[rule](config, **names)
    except KeyError as error:
        return Found(path, UNKNOWN, f"the configuration has no {error}", head["versions"])
    problems = [*_other_inputs(head), *_other_code(head, scripts), *_other_config(head, expected)]
    return Found(path, STALE if problems else WHOLE, "; ".join(problems), head["versions"])


def _other_inputs(head: Mapping) -> Iterator[str]:
    for name, digest in head.get("inputs", {}).items():
        try:
            if artifacts.file_hash(name) != digest:
                yield f"{name} is another one than it was made from"
        except ArtifactError:
            yield f"{name}, from which it was made, is gone"


def _other_code(head: Mapping, scripts: Path) -> Iterator[str]:
    code = head["code"]
    try:
        now = code_of(scripts, code["script"], code["plugins"])
    except (OSError, ConfigError):
        now = None
    if now != code:
        yield f"the code of {code['script']} has changed"


def _other_config(head: Mapping, expected: Mapping) -> Iterator[str]:
    then, now = head["config"], json.loads(json.dumps(expected))
    for key in sorted({*then, *now}):
        if then.get(key) != now.get(key):
            yield f"'{key}' in the configuration has changed"


def _check_sparsity(path: Path) -> None:
    """Counts the weights that pruning removed and compares them with its report."""
    import numpy as np

    changes, _ = artifacts.read_tensors(path, "pruned")
    layers, _ = artifacts.read_table(path.with_name("layers.parquet"), "layers")
    for name, n, reported in layers[["name", "n_weights", "achieved_sparsity"]].itertuples(
        index=False
    ):
        if f"{name}.mask" in changes:
            removed = int(np.bitwise_count(changes[f"{name}.mask"].numpy()).sum(dtype=np.int64))
        elif name in changes:
            removed = int((changes[name] == 0).sum())
        else:
            raise ArtifactError(f"{path} has nothing for {name}, which layers.parquet lists")
        if removed != round(reported * n):
            raise ArtifactError(
                f"{path} removes {removed} of {n} weights of {name}; layers.parquet says {reported}"
            )


def _check_masks(path: Path, head: Mapping) -> None:
    """Looks whether a fine-tuned model is zero wherever the pruned one that it comes from is."""
    from ecoflap.masks import unpack_mask  # torch, which building the DAG does without

    tuned, _ = artifacts.read_tensors(path, "pruned")
    source = next(name for name in head["inputs"] if name.endswith("/changes.safetensors"))
    try:
        pruned, _ = artifacts.read_tensors(source, "pruned")
    except ArtifactError:
        return  # told under its own name
    layers, _ = artifacts.read_table(path.with_name("layers.parquet"), "layers")
    for name in layers["name"]:
        tensor = tuned[name]
        if f"{name}.mask" in pruned:
            gone = unpack_mask(pruned[f"{name}.mask"], tuple(tensor.shape))
        else:
            gone = pruned[name] == 0
        back = int((tensor[gone] != 0).sum())
        if back:
            raise ArtifactError(f"{path} has {back} weights of {name} that {source} removes")


def summary(found: list[Found]) -> str:
    """Formats what was found: the artifacts that are not whole, and counts."""
    states = Counter(item.state for item in found)
    lines = [f"{item.state}: {item.path}\n    {item.why}" for item in found if item.why]
    makers = Counter(
        ", ".join(f"{name} {version}" for name, version in item.versions.items())
        for item in found
        if item.versions
    )
    lines += [f"made with {versions}: {count}" for versions, count in makers.most_common()]
    lines.append(f"{len(found)} artifacts: " + ", ".join(f"{n} {s}" for s, n in states.items()))
    return "\n".join(lines) + "\n"


def trusted(found: list[Found]) -> bool:
    """Tells whether nothing is damaged or out of date."""
    return not any(item.state in (DAMAGED, STALE) for item in found)
