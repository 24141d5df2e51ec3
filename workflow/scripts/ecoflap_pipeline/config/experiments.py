"""What an experiment may hold, by its kind, and whether its parts fit. Needs no torch."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ecoflap.errors import message
from ecoflap.plugins import FAMILIES, METRIC_LABELS, missing, unknown
from ecoflap.schema import Count, Entry, Name, Positive, Text, Told, form, free, key, known, listed
from ecoflap_pipeline import points
from ecoflap_pipeline.points import needs_plan, suites_of, takes, tasks_of
from ecoflap_pipeline.report import headings
from ecoflap_pipeline.targets import FIGURES, TABLES

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Sparsity = form(
    "^0[.]([0-9]{0,3}[1-9]|0)$",
    "text, a quoted fraction between 0 and 1 with at most four decimals and no needless zero, "
    'like "0.5"',
)
Sparsities = listed(Sparsity)
TABLES_OF_OTHERS = sorted(
    path.stem for path in (Path(__file__).parents[3] / "resources" / "published").glob("*.csv")
)


def _odd(number: int) -> int:
    if number < 3 or number % 2 == 0:
        raise ValueError(message(f"{number}", "an odd number from 3 on", "Correct the value."))
    return number


class Experiment(Entry):
    """A table or a figure. Read by the list of targets, `make_table` and `plot_figure`."""

    KIND, KINDS = "kind", {}
    kind: Literal[(*TABLES, *FIGURES)] = key(
        "What is made; cost: seconds, GPU-hours, memory and energy of each stage."
    )
    title: Text = key("Heading.")
    models: listed(Name) = key("Entries of config/models.yaml.")
    seeds: Annotated[
        listed(Seed) | dict[str, listed(Seed)],
        Told("a list, or variant to list, of whole numbers from 0 on, at least one entry in each"),
    ] = free(
        "Calibration seeds: a list, or variant to list for some variants; the others have those "
        "of the main config.",
        usual="those of the main config",
    )
    like: Name = free(
        "Another entry, whose keys hold where this one has none of its own; filled in before "
        "anything else."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields seeds of variants that are not there."""
        variants = getattr(self, "variants", [])
        for variant in self.seeds if isinstance(self.seeds, dict) else ():
            if variant not in variants:
                yield "seeds: " + unknown("variant of this experiment", variant, variants)


class OfVariants(Experiment):
    """Made of pruned models."""

    variants: listed(Name) = key("Entries of config/variants.yaml.")
    sparsities: Sparsities = key("Fractions of the prunable weights to remove, quoted.")


class Evaluated(OfVariants):
    """Made of what tasks measure."""

    tasks: listed(Name) = key("Entries of config/tasks.yaml.")


class OneModel(Experiment):
    """A figure of one model."""

    models: listed(Name, most=1) = key("One model a figure.")


class Beside(Evaluated):
    """Shows the numbers of others too."""

    published: Literal[tuple(TABLES_OF_OTHERS)] = free(
        "The numbers of others to show beside (workflow/resources/published)."
    )
    published_where: dict[str, str | int] = free(
        "Column of the published table to the value of the rows to use, such as panel: a.",
        usual="all",
    )
    published_rows: Annotated[dict[str, str], Field(min_length=1)] = free(
        "Variant (or dense) to the published method that it is; with this key, measured, "
        "published and difference stand in one cell."
    )
    published_columns: Annotated[
        dict[
            form(
                "^([a-z0-9-]+/[a-z0-9_]+|average|seconds|peak_memory_mb)$",
                "task/metric, average, seconds or peak_memory_mb",
            ),
            str,
        ],
        Field(min_length=1),
    ] = free(
        "Column of ours to the published column that it is: task/metric such as vqav2/accuracy, "
        "average, seconds or peak_memory_mb (published in GB of 1024 MiB)."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields keys that need others."""
        yield from super().mistakes()
        for name, others in (
            ("published_where", ("published",)),
            ("published_rows", ("published", "published_columns")),
            ("published_columns", ("published_rows",)),
        ):
            absent = [other for other in others if getattr(self, other) is None]
            if getattr(self, name) is not None and absent:
                yield message(
                    f"{name} without {', '.join(absent)}",
                    f"{name} with {', '.join(others)}",
                    "Add the key.",
                )


class Cost(Beside, kind="cost"):
    """Seconds, GPU-hours, memory and energy of each stage."""

    dense_from: dict[str, str] = free(
        "Model to another, on which its dense row is measured; its own dense numbers are a row of "
        "their own."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields dense rows of models that are not there."""
        yield from super().mistakes()
        for model in self.dense_from or {}:
            if model not in self.models:
                yield "dense_from: " + unknown("model of this table", model, self.models)


class Table(Cost, kind="table"):
    """A table of metrics."""

    average: Annotated[
        dict[str, listed(known("metric", METRIC_LABELS))],
        Field(min_length=1),
    ] = free(
        "Task to its metrics: a column with the mean over these tasks of each one's mean over "
        "these metrics, where all are there."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields tasks that are not there."""
        yield from super().mistakes()
        for task in self.average or {}:
            if task not in self.tasks:
                yield "average: " + unknown("task of this table", task, self.tasks)


class Tradeoff(OneModel, Beside, kind="tradeoff"):
    """Metrics over sparsity."""

    def mistakes(self) -> Iterator[str]:
        """Yields published numbers without the rows that they are of."""
        yield from super().mistakes()
        if self.published is not None and self.published_rows is None:
            yield message(
                "published without published_rows", "published with published_rows", "Add the key."
            )


class Ablation(OneModel, Evaluated, kind="ablation"):
    """Metrics over something that is varied."""

    sparsities: listed(Sparsity, most=1) = key("One sparsity a figure.")
    x: Annotated[dict[str, float | str], Field(min_length=1)] = key(
        "Variant to its place on the x axis, all numbers or all text; a variant without one is a "
        "horizontal line."
    )
    x_label: Text = key("Name of what is varied.")
    x_scale: Literal["linear", "log"] = free("Scale of numbers on the x axis.", usual="linear")

    def mistakes(self) -> Iterator[str]:
        """Yields places on the axis that cannot be."""
        yield from super().mistakes()
        if len({isinstance(value, str) for value in self.x.values()}) > 1:
            yield message("x: numbers and text", "all numbers or all text", "Quote all or none.")
        for variant, value in self.x.items():
            if variant not in self.variants:
                yield "x: " + unknown("variant of this figure", variant, self.variants)
            if self.x_scale == "log" and (isinstance(value, str) or value <= 0):
                yield message(
                    f"x.{variant}: {value!r} on a logarithmic axis",
                    "numbers above 0",
                    "Correct the value or remove x_scale.",
                )


class SparsityPerBlock(OneModel, OfVariants, kind="sparsity-per-block"):
    """What each block loses."""

    sparsities: listed(Sparsity, most=1) = key("One sparsity a figure.")
    tasks: listed(Name) = free("Entries of config/tasks.yaml.")


class TrainingCurve(OneModel, OfVariants, kind="training-curve"):
    """Losses while fine-tuning."""


class ScoreScatter(OneModel, kind="score-scatter"):
    """One score over another."""

    scores: listed(Name, least=2, most=2) = key(
        "Two entries of config/scores.yaml: the x and the y axis."
    )


class LossLandscape(OneModel, kind="loss-landscape"):
    """The loss around the dense weights."""

    radius: Positive = key(
        "Distance from the dense weights to an edge of the grid, in units of the norm of each row "
        "of weights."
    )
    steps: Annotated[int, AfterValidator(_odd), Told("an odd whole number, at least 3")] = key(
        "Grid points along an axis, odd so that the dense weights are one."
    )
    samples: Count = key("Calibration samples whose loss is shown.")
    batch_size: Count = key("Samples per loss.")


def problems(place: str, config: Mapping, name: str) -> Iterator[str]:
    """Yields what is wrong with an experiment whose names are all known.

    Args:
        place: Where it stands, for messages.
        config: The merged configuration.
        name: The experiment.
    """
    experiment = config["experiments"][name]
    if experiment.get("tasks"):
        yield from _task_problems(place, config, name, experiment)
        yield from _heading_problems(place, config, experiment)
        yield from _metric_problems(place, config, experiment)
    yield from _label_problems(place, config, name, experiment)
    yield from _dense_problems(place, config, name, experiment)


def _task_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    """A task that suits one model may not suit another, but each must have its part."""
    models = experiment["models"]
    taken = {model: takes(config, name, model) for model in models}
    for task in experiment["tasks"]:
        if not any(task in tasks for tasks in taken.values()):
            kind = config["tasks"][task]["kind"]
            families = {config["models"][model]["family"] for model in models}
            allowed = "; ".join(
                f"{', '.join(FAMILIES[family].tasks)} for the family {family}"
                for family in sorted(families)
            )
            yield message(
                f"{place}: task '{task}' ({kind}) does not suit model "
                + " or ".join(f"'{model}'" for model in models),
                allowed + ", and what the key tasks of a model names",
                "Choose another task or model.",
            )
    for model, tasks in taken.items():
        kinds = FAMILIES[config["models"][model]["family"]].tasks
        if not tasks:
            yield message(
                f"{place}: no task suits model '{model}'",
                f"a task of the kind {', '.join(kinds)}",
                "Add a task or remove the model.",
            )
        for suite in suites_of(config, tasks):
            for task, entry in tasks_of(config, suite).items():
                if entry["kind"] not in kinds:
                    yield message(
                        f"{place}: task '{task}' ({entry['kind']}) of suite '{suite}' does not "
                        f"suit model '{model}'",
                        f"{', '.join(kinds)} for the family {config['models'][model]['family']}",
                        "Take it out of the suite.",
                    )


def _heading_problems(place: str, config: Mapping, experiment: Mapping) -> Iterator[str]:
    """Two columns with one heading would be one column, with the numbers of the last."""
    taken = dict.fromkeys(headings.OWN if experiment["kind"] in TABLES else (), "the table itself")
    for task in experiment["tasks"]:
        entry = config["tasks"][task]
        for metric in points.metrics_of(entry):
            heading = headings.of_task(entry["label"], metric)
            if heading in taken:
                yield message(
                    f"{place}: the heading '{heading}' is that of {taken[heading]} and of task "
                    f"'{task}'",
                    "a heading of its own for each column",
                    f"Change the label of task '{task}'.",
                )
            taken[heading] = f"task '{task}'"


def _metric_problems(place: str, config: Mapping, experiment: Mapping) -> Iterator[str]:
    average = experiment.get("average", {})
    columns = (column.split("/") for column in experiment.get("published_columns", {}))
    named = [
        *(("average", task, metric) for task, metrics in average.items() for metric in metrics),
        *(("published_columns", *column) for column in columns if len(column) == 2),
    ]
    for part, task, metric in named:
        if task in config["tasks"]:
            measured = points.metrics_of(config["tasks"][task])
            yield from missing(f"{place}.{part}.{task}", "metric", [metric], measured)


def _label_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    labels = [config["variants"][entry]["label"] for entry in experiment.get("variants", [])]
    labels += ["Dense"]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield message(
            f"{place}: two variants with the label '{label}'",
            "a label of its own for each row",
            "Change one label.",
        )
    for one, other in combinations(experiment["models"], 2):
        label = config["models"][one]["label"]
        both = set(takes(config, name, one)) & set(takes(config, name, other))
        if label == config["models"][other]["label"] and both:
            yield message(
                f"{place}: models '{one}' and '{other}' with the label '{label}' both take "
                + ", ".join(sorted(both)),
                "one model for each task of a row",
                "Change one label, or name the tasks of each model with its key tasks.",
            )
    if experiment["kind"] == "training-curve":
        for variant in experiment["variants"]:
            if "from" not in config["variants"][variant]:
                yield message(
                    f"{place}: variant '{variant}' is not fine-tuned",
                    "variants with from and finetune",
                    "Remove it from this figure.",
                )
    if experiment["kind"] == "sparsity-per-block":
        for variant in experiment["variants"]:
            entry = config["variants"][variant]
            if "from" in entry or not needs_plan(entry):
                yield message(
                    f"{place}: variant '{variant}' has no allocation to draw",
                    "pruned variants with an allocation",
                    "Remove it from this figure.",
                )


def _dense_problems(place: str, config: Mapping, name: str, experiment: Mapping) -> Iterator[str]:
    for model, other in experiment.get("dense_from", {}).items():
        if other not in config["models"]:
            yield f"{place}.dense_from: " + unknown("model", other, config["models"])
        elif takes(config, name, other) != takes(config, name, model):
            yield message(
                f"{place}.dense_from: '{other}' does not take the tasks of '{model}'",
                ", ".join(takes(config, name, model)),
                "Name a model of the same family.",
            )
