"""Where each artifact lies: one table of path, kind and the rule that writes it. Needs no torch."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ecoflap.errors import ArtifactError

# One job of a rule, as a path.
MODEL_JOB = "{model}"
DATASET_JOB = "{dataset}/{split}/{view}"
SAMPLES_JOB = "{model}/{calibration}/seed{seed}"
SCORE_JOB = f"{SAMPLES_JOB}/{{score}}"
POINT_JOB = "{model}/{variant}/seed{seed}/{sparsity}"
SUITE_JOB = f"{POINT_JOB}/{{suite}}"

WILDCARDS = {"seed": "[0-9]+", "sparsity": "0[.](?:0|[0-9]*[1-9])"}  # others: one directory level
MANIFEST = "manifest.json"  # of an artifact that is a folder: it tells the hash of each file
TABLE_FORMS = ("csv", "md", "html", "tex")
FIGURE_FORMS = ("csv", "pdf", "svg", "png")


class Artifact(NamedTuple):
    """A file, or a folder with a manifest, that a rule writes.

    Attributes:
        template: Its path from the working directory, with wildcards.
        kind: As its header tells it.
        rule: The rule whose settings it rests on.
        is_folder: Whether it is a folder.
    """

    template: str
    kind: str
    rule: str
    is_folder: bool = False

    def at(self, **names: object) -> str:
        """Returns the path with its wildcards filled in; names of other wildcards are ignored."""
        return self.template.format(**names)

    def match(self, path: str) -> dict[str, str] | None:
        """Returns the wildcards of a path, None if another artifact lies there."""
        inside = path.removesuffix(f"/{MANIFEST}") if self.is_folder else path
        found = _pattern(self.template).fullmatch(inside)
        return found.groupdict() if found else None

    def made(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Yields the files with a header in the working directory, and their wildcards."""
        files = f"{self.template}/{MANIFEST}" if self.is_folder else self.template
        for path in sorted(Path().glob(re.sub(r"{\w+}", "*", files))):
            names = self.match(path.as_posix())
            if names is not None:
                yield path, names


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    def group(wildcard: re.Match[str]) -> str:
        return f"(?P<{wildcard[1]}>{WILDCARDS.get(wildcard[1], '[^/]+')})"

    return re.compile(re.sub(r"{(\w+)}", group, template.replace(".", "[.]")))


def _calibration(file: str) -> str:
    return f"results/calibration/{SAMPLES_JOB}/{file}"


def _score(file: str) -> str:
    return f"results/scores/{SAMPLES_JOB}/{{score}}{file}"


def _pruned(file: str) -> str:
    return f"results/pruned/{POINT_JOB}/{file}"


def _finetuned(file: str) -> str:
    return f"results/finetuned/{POINT_JOB}/{file}"


def _evaluation(file: str) -> str:
    return f"results/evaluation/{SUITE_JOB}/{file}"


MODEL = Artifact(f"results/models/{MODEL_JOB}", "model", "prepare_model", is_folder=True)
DATASET = Artifact(f"results/datasets/{DATASET_JOB}.json", "dataset", "check_dataset")
OVERLAP = Artifact(f"results/overlaps/{DATASET_JOB}.json", "overlap", "check_overlap")
DOWNLOAD = Artifact("results/downloads/{task}.json", "download", "fetch_task")
SAMPLES = Artifact(_calibration("samples.safetensors"), "calibration", "extract_calibration")
SAMPLES_MANIFEST = Artifact(_calibration(MANIFEST), "calibration", "extract_calibration")
SAMPLES_COST = Artifact(_calibration("cost.json"), "cost", "extract_calibration")
SCORES = Artifact(_score(".parquet"), "scores", "compute_scores")
SCORES_COST = Artifact(_score(".cost.json"), "cost", "compute_scores")
CHOICE = Artifact(f"results/allocations/{POINT_JOB}.choice.json", "choice", "choose_plan")
PLAN = Artifact(f"results/allocations/{POINT_JOB}.json", "allocation", "allocate_sparsity")
CHANGES = Artifact(_pruned("changes.safetensors"), "pruned", "prune_model")
LAYERS = Artifact(_pruned("layers.parquet"), "layers", "prune_model")
PRUNE_COST = Artifact(_pruned("cost.json"), "cost", "prune_model")
FINETUNED = Artifact(_finetuned("changes.safetensors"), "pruned", "finetune_model")
FINETUNED_LAYERS = Artifact(_finetuned("layers.parquet"), "layers", "finetune_model")
CURVE = Artifact(_finetuned("curve.parquet"), "curve", "finetune_model")
FINETUNE_COST = Artifact(_finetuned("cost.json"), "cost", "finetune_model")
METRICS = Artifact(_evaluation("metrics.json"), "metrics", "evaluate_model")
PREDICTIONS = Artifact(_evaluation("predictions.parquet"), "predictions", "evaluate_model")
EVALUATION_COST = Artifact(_evaluation("cost.json"), "cost", "evaluate_model")
LANDSCAPE = Artifact("results/landscapes/{landscape}.parquet", "landscape", "loss_landscape")
EXPORT = Artifact(f"results/exports/{POINT_JOB}", "export", "export_checkpoint", is_folder=True)
ARTIFACTS = tuple(value for value in globals().values() if isinstance(value, Artifact))
# Gathered into SCORES and deleted.
SHARD = Artifact(_score(".shards/{shard}-of-{shards}.parquet"), "scores", "compute_scores")
SHARD_COST = Artifact(_score(".shards/{shard}-of-{shards}.cost.json"), "cost", "compute_scores")


def artifact_at(path: str) -> tuple[Artifact, dict[str, str]]:
    """Returns the artifact that lies at a path, and its wildcards.

    Raises:
        ArtifactError: if the path is none of the table.
    """
    for artifact in ARTIFACTS:
        names = artifact.match(path)
        if names is not None:
            return artifact, names
    raise ArtifactError(
        f"{path} is no artifact of the pipeline",
        allowed="; ".join(artifact.template for artifact in ARTIFACTS),
        fix="Correct the path.",
    )


def table(form: str) -> str:
    """Returns where a table lies, in a form of `TABLE_FORMS`."""
    return f"results/tables/{{table}}.{form}"


def figure(form: str) -> str:
    """Returns where a figure, or what it shows, lies, in a form of `FIGURE_FORMS`."""
    return f"results/figures/{{figure}}.{form}"


def log(rule: str, job: str) -> str:
    """Returns where the jobs of a rule log."""
    return f"results/logs/{rule}/{job}.log"


def benchmark(rule: str, job: str) -> str:
    """Returns where Snakemake writes what the jobs of a rule cost."""
    return f"results/benchmarks/{rule}/{job}.tsv"
