"""Looks at every artifact of a results folder: is it whole, and is it what would be made today?"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ecoflap import artifacts
from ecoflap.errors import ArtifactError, ConfigError
from ecoflap_pipeline import params
from ecoflap_pipeline.code import code_of
from ecoflap_pipeline.paths import ARTIFACTS, FINETUNED, Artifact

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


def verify(config: Mapping, scripts: Path) -> Iterator[Found]:
    """Yields every artifact in ``results`` of the working directory.

    Args:
        config: The merged configuration, defaults filled in.
        scripts: The folder of the rules' scripts.
    """
    for artifact in ARTIFACTS:
        for path, names in artifact.made():
            yield _look(path, artifact, names, config, scripts)


def _look(
    path: Path, artifact: Artifact, names: Mapping[str, str], config: Mapping, scripts: Path
) -> Found:
    try:
        head = artifacts.read_header(path, artifact.kind)
        if artifact.is_folder:
            artifacts.checked(path.parent, artifact.kind)
        if artifact.kind == "pruned":
            _check_sparsity(path)
        if artifact == FINETUNED:
            _check_masks(path, head)
    except ArtifactError as error:
        return Found(path, DAMAGED, str(error))
    try:
        expected = params.RULES[artifact.rule](config, **names)
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
