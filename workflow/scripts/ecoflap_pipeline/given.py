"""What each rule is given: its input files, and the params that make it run again.

Methods are named after the rule and what it is given, in the order of the stages; each takes the
wildcards of a job.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient
from snakemake.iocontainers import Wildcards

from ecoflap.data import mixes
from ecoflap.plugins import ADAPTERS, CRITERIA, DATASETS, LAYOUTS, SCORES
from ecoflap_pipeline import params, paths, points, targets
from ecoflap_pipeline.code import SCRIPTS, code_of
from ecoflap_pipeline.config import references
from ecoflap_pipeline.paths import Artifact
from ecoflap_pipeline.report import costs, published


@functools.cache
def _hashed(script: str, plugins: tuple[str, ...]) -> dict:
    return code_of(SCRIPTS, script, plugins)


class Given:
    """Input functions and params of the rules.

    Attributes:
        config: The checked configuration.
        tuned: Variants that are fine-tuned from another one.
        pruned: The other variants.
        gpus: GPUs that a job which runs a model asks for.
    """

    def __init__(self, config: Mapping):
        """Takes the checked configuration."""
        self.config = config
        self.tuned = [name for name, entry in config["variants"].items() if "from" in entry]
        self.pruned = [name for name in config["variants"] if name not in self.tuned]
        self.gpus = 0 if config["device"] == "cpu" else 1
        self.refuse_unfit = functools.cache(self._refuse_unfit)  # once for all jobs of a point

    def code(self, script: str, plugins: Iterable[str] = ()) -> dict:
        """Returns a rule's script with the hash of what it imports and of plug-ins it will load."""
        return _hashed(script, tuple(plugins))

    def read_by(self, rule: str) -> Callable[[Wildcards], dict]:
        """What a rule reads of the configuration, by its wildcards."""

        def of(wildcards):
            return params.RULES[rule](self.config, **dict(wildcards.items()))

        return of

    def point(self, wildcards: Wildcards) -> dict:
        """What an artifact is of; in params, so that a cache never takes one for another."""
        return {key: int(value) if key == "seed" else value for key, value in wildcards.items()}

    def adapter(self, wildcards: Wildcards) -> str:
        return ADAPTERS.module_name(self.config["models"][wildcards.model]["family"])

    def dataset(self, entry: Mapping) -> str:
        name = entry["dataset"]["name"]
        if name in DATASETS:
            return DATASETS.module_name(name)
        return LAYOUTS.module_name(self.config["datasets"][name]["layout"])

    def _refuse_unfit(
        self, model: str, variant: str, sparsity: str, suite: str | None = None
    ) -> None:
        """A file that is asked for by its path may be of a point that no experiment may have."""
        for problem in references.point_problems(self.config, model, variant, sparsity, suite):
            raise WorkflowError(problem)

    def variant(self, wildcards: Wildcards) -> dict:
        return self.config["variants"][wildcards.variant]

    def calibration_values(self, wildcards: Wildcards) -> dict:
        """Wildcards with the calibration set of the variant, to fill in paths."""
        name = points.calibration_of(self.config, wildcards.model, wildcards.variant)
        return {**dict(wildcards.items()), "calibration": name}

    def _of_datasets(self, artifact: Artifact, entries: Iterable[Mapping]) -> Iterator[str]:
        for place in (entry["dataset"] for entry in entries if "dataset" in entry):
            if place["name"] in self.config["datasets"]:
                yield artifact.at(**targets.of_dataset(place))

    # check_dataset
    def reports_of(self, entries: Iterable[Mapping]) -> list[str]:
        """The reports on the data sets of entries, but for those that are built in."""
        return list(dict.fromkeys(self._of_datasets(paths.DATASET, entries)))

    def dataset_code(self, wildcards: Wildcards) -> dict:
        layout = self.config["datasets"][wildcards.dataset]["layout"]
        return self.code("check_dataset.py", [LAYOUTS.module_name(layout)])

    # check_overlap
    def overlaps_of(self, entries: Iterable[Mapping]) -> list[str]:
        """Their reports, as old as can be: a task that is added later asks for no new samples."""
        return list(map(ancient, dict.fromkeys(self._of_datasets(paths.OVERLAP, entries))))

    def overlap_code(self, wildcards: Wildcards) -> dict:
        read = params.check_overlap(self.config, **dict(wildcards.items()))
        readers = [
            (
                LAYOUTS.module_name(entry["layout"])
                if "layout" in entry
                else DATASETS.module_name(entry["name"])
            )
            for entry in (read["drawn"], *read["evaluated"].values())
        ]
        return self.code("check_overlap.py", readers)

    # prepare_model
    def model_files(self, wildcards: Wildcards) -> list[str]:
        """The files of a local checkpoint, so that new weights are noticed."""
        folder = self.config["models"][wildcards.model]["source"].get("folder")
        return sorted(map(str, Path(folder).glob("*.*"))) if folder else []

    def donor(self, wildcards: Wildcards) -> str | list[str]:
        """The model whose towers this one has."""
        donor = points.pruned_model(self.config, wildcards.model)
        return paths.MODEL.at(model=donor) if donor != wildcards.model else []

    def changed(self, wildcards: Wildcards) -> dict:
        """Wildcards with the model that was pruned."""
        values = dict(wildcards.items())
        return {**values, "model": points.pruned_model(self.config, wildcards.model)}

    def prepare_code(self, wildcards: Wildcards) -> dict:
        return self.code("prepare_model.py", [self.adapter(wildcards)])

    # extract_calibration
    def calibration_parts(self, wildcards: Wildcards) -> list:
        return mixes.parts_of(self.config["calibrations"][wildcards.calibration])

    def calibration_reports(self, wildcards: Wildcards) -> list[str]:
        return self.reports_of(self.calibration_parts(wildcards))

    def calibration_overlaps(self, wildcards: Wildcards) -> list[str]:
        return self.overlaps_of(self.calibration_parts(wildcards))

    def answers_itself(self, wildcards: Wildcards) -> bool:
        """Whether the model writes the targets, for which it runs."""
        entry = self.config["calibrations"][wildcards.calibration]
        return entry.get("targets", "data") == "generated"

    def calibration_device(self, wildcards: Wildcards) -> str:
        return self.config["device"] if self.answers_itself(wildcards) else "cpu"

    def calibration_gpus(self, wildcards: Wildcards) -> int:
        return self.gpus if self.answers_itself(wildcards) else 0

    def calibration_code(self, wildcards: Wildcards) -> dict:
        read = [self.dataset(part) for part in self.calibration_parts(wildcards)]
        return self.code("extract_calibration.py", [self.adapter(wildcards), *read])

    # compute_scores and score_shard
    def score_shards(self, wildcards: Wildcards) -> list[str]:
        return targets.shards(self.config, wildcards)

    def score_shard_costs(self, wildcards: Wildcards) -> list[str]:
        return targets.shards(self.config, wildcards, paths.SHARD_COST)

    def score_gpus(self, wildcards: Wildcards) -> int:
        """None for the job that only gathers."""
        return 0 if self.score_shards(wildcards) else self.gpus

    def score_code(self, wildcards: Wildcards) -> dict:
        estimator = self.config["scores"][wildcards.score]["estimator"]
        return self.code(
            "compute_scores.py", [self.adapter(wildcards), SCORES.module_name(estimator)]
        )

    # allocate_sparsity
    def allocation_scores(self, wildcards: Wildcards) -> list[str]:
        values = self.calibration_values(wildcards)
        names = points.scores_of(self.variant(wildcards))
        return [paths.SCORES.at(**values, score=name) for name in names]

    def allocation_choice(self, wildcards: Wildcards) -> str | list[str]:
        return paths.CHOICE.template if points.is_chosen(self.variant(wildcards)) else []

    # choose_plan
    def choice_code(self, wildcards: Wildcards) -> dict:
        name = points.calibration_of(self.config, wildcards.model, wildcards.variant)
        plugins = [
            self.adapter(wildcards),
            CRITERIA.module_name(self.variant(wildcards)["criterion"]),
            *map(self.dataset, mixes.parts_of(self.config["calibrations"][name])),
        ]
        return self.code("choose_plan.py", plugins)

    # prune_model
    def prune_plan(self, wildcards: Wildcards) -> str | list[str]:
        self.refuse_unfit(wildcards.model, wildcards.variant, wildcards.sparsity)
        return paths.PLAN.template if points.needs_plan(self.variant(wildcards)) else []

    def prune_samples(self, wildcards: Wildcards) -> str | list[str]:
        needed = points.needs_samples(self.variant(wildcards))
        return paths.SAMPLES.at(**self.calibration_values(wildcards)) if needed else []

    def prune_checkpoint(self, wildcards: Wildcards) -> str | list[str]:
        return self.variant(wildcards).get("checkpoint", {}).get("file", [])

    def prune_code(self, wildcards: Wildcards) -> dict:
        criterion = self.variant(wildcards)["criterion"]
        plugins = [CRITERIA.module_name(criterion)] if criterion in CRITERIA else []
        return self.code("prune_model.py", [self.adapter(wildcards), *plugins])

    # finetune_model
    def finetune_changes(self, wildcards: Wildcards) -> str | list[str]:
        self.refuse_unfit(wildcards.model, wildcards.variant, wildcards.sparsity)
        values = {**dict(wildcards.items()), "variant": self.finetune_source(wildcards)}
        return paths.CHANGES.at(**values)

    def finetune_source(self, wildcards: Wildcards) -> str:
        return points.pruned_as(self.config, wildcards.variant)

    def finetune_data(self, wildcards: Wildcards) -> list:
        name = points.finetuning_of(self.config, wildcards.model, wildcards.variant)
        return self.config["finetuning"][name]["data"]

    def finetune_reports(self, wildcards: Wildcards) -> list[str]:
        return self.reports_of(self.finetune_data(wildcards))

    def finetune_overlaps(self, wildcards: Wildcards) -> list[str]:
        return self.overlaps_of(self.finetune_data(wildcards))

    def finetune_code(self, wildcards: Wildcards) -> dict:
        read = [self.dataset(entry) for entry in self.finetune_data(wildcards)]
        return self.code("finetune_model.py", [self.adapter(wildcards), *read])

    # evaluate_model
    def evaluation_changes(self, wildcards: Wildcards) -> str | list[str]:
        dense = wildcards.variant == points.DENSE
        if dense != (wildcards.sparsity == points.DENSE_SPARSITY):
            raise WorkflowError(
                f"sparsity {wildcards.sparsity} of the variant {wildcards.variant}. Allowed: "
                f"{points.DENSE_SPARSITY} for {points.DENSE}, above it for others. "
                "Correct the path."
            )
        self.refuse_unfit(
            *(wildcards.model, wildcards.variant, wildcards.sparsity),
            wildcards.get("suite"),
        )
        if dense:
            return []
        artifact = paths.FINETUNED if wildcards.variant in self.tuned else paths.CHANGES
        return artifact.at(**self.changed(wildcards))

    def evaluation_donor(self, wildcards: Wildcards) -> str | list[str]:
        """The dense model that was pruned, where it is another one."""
        return self.donor(wildcards) if wildcards.variant != points.DENSE else []

    def evaluation_tasks(self, wildcards: Wildcards) -> dict:
        return points.tasks_of(self.config, wildcards.suite)

    def evaluation_reports(self, wildcards: Wildcards) -> list[str]:
        return self.reports_of(self.evaluation_tasks(wildcards).values())

    def evaluation_code(self, wildcards: Wildcards) -> dict:
        tasks = self.evaluation_tasks(wildcards).values()
        read = [self.dataset(task) for task in tasks if "dataset" in task]
        return self.code("evaluate_model.py", [self.adapter(wildcards), *read])

    # export_checkpoint
    def export_suites(self, wildcards: Wildcards) -> list[str]:
        return targets.suites_asked(self.config, points.Point(**self.point(wildcards)))

    def export_metrics(self, wildcards: Wildcards) -> list[str]:
        suites = self.export_suites(wildcards)
        return [paths.METRICS.at(**wildcards, suite=suite) for suite in suites]

    def export_dense_metrics(self, wildcards: Wildcards) -> list[str]:
        dense = points.dense(self.config, wildcards.model)._asdict()
        return [paths.METRICS.at(**dense, suite=suite) for suite in self.export_suites(wildcards)]

    def export_manifest(self, wildcards: Wildcards) -> str | list[str]:
        told = params.export_checkpoint(self.config, **wildcards)["card"]
        if "calibration" not in told:
            return []
        values = self.changed(wildcards)
        name = points.calibration_of(self.config, values["model"], wildcards.variant)
        return paths.SAMPLES_MANIFEST.at(**values, calibration=name)

    def export_tasks(self, wildcards: Wildcards) -> dict:
        """Every task that the card may show, as a reader sees it."""
        suites = self.export_suites(wildcards)
        names = [name for suite in suites for name in points.tasks_of(self.config, suite)]
        return {name: self.config["tasks"][name] for name in names}

    def export_code(self, wildcards: Wildcards) -> dict:
        return self.code("export_checkpoint.py", [self.adapter(wildcards)])

    # make_table and plot_figure
    def published_file(self, experiment: str) -> str | list[str]:
        name = self.config["experiments"][experiment].get("published")
        return f"{published.FOLDER}/{name}.csv" if name else []

    def tasks_taken(self, experiment: str) -> dict[str, list[str]]:
        return {
            model: points.takes(self.config, experiment, model)
            for model in points.dense_models(self.config, experiment)
        }

    # make_table
    def table_metrics(self, wildcards: Wildcards) -> list[str]:
        return list(targets.metrics(self.config, wildcards.table))

    def table_costs(self, wildcards: Wildcards) -> list[str]:
        return list(targets.pruned(self.config, wildcards.table, paths.PRUNE_COST))

    def table_score_costs(self, wildcards: Wildcards) -> list[str]:
        return list(dict.fromkeys(targets.scores(self.config, wildcards.table, paths.SCORES_COST)))

    def table_choices(self, wildcards: Wildcards) -> list[str]:
        return list(targets.choices(self.config, wildcards.table))

    def table_stages(self, wildcards: Wildcards) -> list:
        """What each stage of each row cost; a table of metrics does not say."""
        entry = self.config["experiments"][wildcards.table]
        return list(costs.parts(self.config, wildcards.table)) if entry["kind"] == "cost" else []

    def table_stage_costs(self, wildcards: Wildcards) -> list[str]:
        return list(dict.fromkeys(part.path for part in self.table_stages(wildcards)))

    def table_finetune_costs(self, wildcards: Wildcards) -> list[str]:
        return list(targets.finetuned(self.config, wildcards.table, paths.FINETUNE_COST))

    def table_published(self, wildcards: Wildcards) -> str | list[str]:
        return self.published_file(wildcards.table)

    def table_settings(self, wildcards: Wildcards) -> dict:
        entry = self.config["experiments"][wildcards.table]
        scores = {
            model: {
                name: (
                    points.calibration_of(self.config, model, name),
                    points.scores_of(self.config["variants"][name]),
                )
                for name in dict.fromkeys(
                    points.pruned_as(self.config, variant) for variant in entry["variants"]
                )
                if points.scores_of(self.config["variants"][name])
            }
            # In one order: a set's would differ from run to run, and the table with it.
            for model in dict.fromkeys(
                point.model for point in points.changed_points(self.config, wildcards.table)
            )
        }
        return {
            **entry,
            "labels": targets.labels(self.config, wildcards.table),
            "scores": scores,
            "stages": [list(part) for part in self.table_stages(wildcards)],
            "takes": self.tasks_taken(wildcards.table),
        }

    # train_demo_model
    def demo_tasks(self, wildcards: Wildcards) -> dict:
        suites = {"demo-blip2": "demo-generation", "demo-clip": "demo-zero-shot"}
        return points.tasks_of(self.config, suites[wildcards.model])

    # plot_figure
    def figure_inputs(self, wildcards: Wildcards) -> list[str]:
        return list(dict.fromkeys(targets.figure_inputs(self.config, wildcards.figure)))

    def figure_published(self, wildcards: Wildcards) -> str | list[str]:
        return self.published_file(wildcards.figure)

    def figure_settings(self, wildcards: Wildcards) -> dict:
        entry = self.config["experiments"][wildcards.figure]
        return {**entry, "labels": targets.labels(self.config, wildcards.figure)}

    # loss_landscape
    def landscape_entry(self, wildcards: Wildcards) -> dict:
        return self.config["experiments"][wildcards.landscape]

    def landscape_model(self, wildcards: Wildcards) -> str:
        (model,) = self.landscape_entry(wildcards)["models"]
        return model

    def landscape_folder(self, wildcards: Wildcards) -> str:
        return paths.MODEL.at(model=self.landscape_model(wildcards))

    def landscape_samples(self, wildcards: Wildcards) -> str:
        return paths.SAMPLES.at(**targets.of_landscape(self.config, wildcards.landscape))

    def landscape_code(self, wildcards: Wildcards) -> dict:
        family = self.config["models"][self.landscape_model(wildcards)]["family"]
        return self.code("loss_landscape.py", [ADAPTERS.module_name(family)])
