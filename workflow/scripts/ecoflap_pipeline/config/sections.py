"""What each section of the configuration may hold. Needs no torch."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ecoflap.data.settings import Calibration
from ecoflap.errors import message
from ecoflap.finetuning.settings import Recipe
from ecoflap.plugins import FAMILIES, LAYOUTS, SCORES, is_dotted
from ecoflap.schema import Count, Entry, Name, Positive, Text, form, free, key, known, listed
from ecoflap_pipeline.config.experiments import Experiment, Seed
from ecoflap_pipeline.config.tasks import Task
from ecoflap_pipeline.config.variants import Variant

HubId = form("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", "owner/name")
Commit = form("^[0-9a-f]{40}$", "a full commit hash of 40 letters and digits")
Colour = form("^#[0-9A-Fa-f]{6}$", "a colour of the form #1f77b4")
Dotted = Text | listed(Text)
Inches = Annotated[float, Field(gt=0, le=40)]
PLACES = ({"folder"}, {"hub", "revision"}, {"pypi", "sha256", "gguf"})
MARKERS = ("o", "s", "^", "v", "<", ">", "D", "d", "P", "X", "p", "h", "8", "*", "+", "x")


class Source(Entry):
    """Where a checkpoint comes from."""

    folder: Text = free("A save_pretrained folder with processor files.")
    hub: HubId = free("Hub id.")
    revision: Commit = free("Commit on the hub.")
    pypi: form("^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$", "name==version") = free("Pinned package.")
    sha256: form("^[0-9a-f]{64}$", "64 letters and digits") = free("SHA-256 of its wheel.")
    gguf: form("^[A-Za-z0-9_./-]+[.]gguf$", "the path of a .gguf file") = free(
        "Path of the GGUF file inside the wheel."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields keys that are no place together."""
        if self.model_fields_set not in PLACES:
            given = ", ".join(sorted(self.model_fields_set)) or "no key"
            places = "one of folder; hub with revision; pypi with sha256 and gguf"
            yield message(given, places, "Keep the keys of one place.")


class Blocks(Entry):
    """Towers and their lists of blocks."""

    vision: Dotted = free("A dotted name or a list of them.")
    language: Dotted = free("A dotted name or a list of them.")

    def mistakes(self) -> Iterator[str]:
        """Yields whether nothing is named."""
        if not self.model_fields_set:
            yield message("no tower", "vision, language or both", "Name one, or remove blocks.")


class Borrowed(Entry):
    """Towers of another model."""

    model: Name = key("Entry of config/models.yaml.")
    towers: listed(Literal["vision", "language"]) = key(
        "Which; a norm behind the vision tower stays, and position embeddings are interpolated "
        "where pictures are larger."
    )


class Model(Entry):
    """A model. Read by `prepare_model`; dtype and batch size by the stages that run it."""

    label: Text = key("Name shown in tables and figures.")
    family: known("model family", FAMILIES) = key("Adapter that loads the model (docs/library.md).")
    source: Source = key("Where prepare_model gets the checkpoint.")
    blocks: Blocks = free(
        "Lists of blocks to prune, for each tower the dotted name of a ModuleList, or several; "
        "the other lists stay dense.",
        usual="found by themselves",
    )
    towers_from: Borrowed = free(
        "Another model whose towers this one gets: it is then evaluated with what that model's "
        "lost, and never pruned itself."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "Number format of the weights while scoring, pruning and evaluating.", "float32"
    )
    licence: Text = free("Licence or terms of use; shown in the report.")
    calibration: Name = key("Entry of config/calibrations.yaml.")
    batch_size: Count = key(
        "Samples per forward of the pruning pass; changes memory and time only.", 32
    )
    offload: Literal["none", "cpu", "disk"] = key(
        "Where the weights of blocks wait while the model is scored and pruned: none (on the "
        "device), cpu (the host's memory) or disk (the checkpoint's files).",
        "none",
    )
    like: Name = free(
        "Another entry, whose keys hold where this one has none of its own; filled in before "
        "anything else."
    )
    tasks: listed(Name) = free(
        "Entries of config/tasks.yaml that the model is for, in any experiment.",
        usual="all that suit its family",
    )


Split = form("^[A-Za-z0-9][A-Za-z0-9._-]*$", "letters, digits, and . _ - after the first of them")


class Data(Entry):
    """A data set that is not built in. Read by `check_dataset` and all that read its examples."""

    layout: known("layout", LAYOUTS) = key("Form of the files; a module of ecoflap.data.layouts.")
    folder: Text = free(
        "Where the files lie, from where snakemake runs; data_folders of the main config "
        "overrides it."
    )
    hub: HubId = free("Data set id on the hub (layout hub).")
    revision: Commit = free("Commit on the hub.")
    splits: Annotated[dict[Split, dict[str, Text]], Field(min_length=1)] = key(
        "Split to what its layout needs to find it: names of files, patterns of picture names; "
        "relative to the folder or the hub repository."
    )
    columns: dict[str, Text] = free(
        "What an example holds to the column that holds it, such as image: picture (layout hub)."
    )
    licence: Text = free("Licence or terms of use; shown in the report.")

    def mistakes(self) -> Iterator[str]:
        """Yields a place on the hub that is none."""
        if self.hub is not None and self.revision is None:
            yield message("hub without 'revision'", "hub with revision", "Add the key.")
        if self.hub is not None and self.layout != "hub":
            yield message(
                f"hub with the layout '{self.layout}'", "the layout hub", "Give a folder."
            )


class Score(Entry):
    """A global score. Read by `compute_scores`."""

    KIND, KINDS = "estimator", {}
    estimator: known("estimator", SCORES) = key(
        "How the score is computed. For one allocation each: outliers (owl), medians (dlp), "
        "spectrum and spectrum-middle (alphapruning; the peak, from which spectrum fits, is noise "
        "below a few hundred eigenvalues: there, and in vision towers, take "
        "spectrum-middle and granularity: matrix, as its authors do), elements and "
        "elements-magnitude (global), lamp. A module of your own has a dot: my_package.my_score."
    )
    samples: Count = key("Calibration samples used.")
    batch_size: Count = key("Samples per loss.")

    @classmethod
    def of(cls, content: Mapping) -> type[Entry]:
        """Returns the model of a score; one of another package has settings of its own."""
        return Own if is_dotted(content.get(cls.KIND)) else super().of(content)


class Own(Score):
    """A score of another package."""

    model_config = ConfigDict(extra="allow")


class Zeroth(Score, kind="zeroth"):
    """The zeroth-order score."""

    draws: Count = free("Random directions per matrix and batch.", usual=1)
    epsilon: Positive = free("Step along a direction, in units of the weights.", usual=0.001)
    shards: Annotated[int, Field(ge=1, le=1000)] = free(
        "Jobs that a score is shared out to, each for a range of blocks; changes no number.",
        usual=1,
    )


class Plotting(Entry):
    """How figures look. Read by `plot_figure` alone."""

    width_inches: Inches = key("Width of one panel in inches (a column of a paper is about 3.4).")
    height_inches: Inches = key("Height of one panel in inches.")
    dpi: Annotated[int, Field(ge=50, le=1200)] = key("Pixels per inch of the PNG.")
    font_size: Positive = key("Points.")
    dense_colour: Colour = key("Colour of the dense model's line.")
    colours: Annotated[list[Colour], Field(min_length=1)] = key("One colour per line in turn.")
    markers: Annotated[list[Literal[MARKERS]], Field(min_length=1)] = key(
        "One marker of matplotlib per line in turn."
    )


class Config(Entry):
    """What a run makes, and where. Read by the list of targets and every stage with a model."""

    run: listed(Name) = key("Experiments to make, by their names in config/experiments.yaml.")
    seeds: listed(Seed) = key(
        "Calibration seeds; with more than one, tables show mean and standard error over them."
    )
    device: Literal["cpu", "cuda", "auto"] = key(
        "Torch device of every job that runs a model. Jobs ask for a gpu unless it is cpu.", "cpu"
    )
    data_folders: dict[str, Text] = key(
        "Local copies of data sets that would come from the hub, data set name to folder.", {}
    )
    environments: dict[str, Text] = key(
        "Python interpreters for models that need other packages than the pipeline, environment "
        "to path, where conda is not used: lavis, open-clip. They go before conda's.",
        {},
    )
    models: Any = free("config/models.yaml")
    datasets: Any = free("config/datasets.yaml")
    calibrations: Any = free("config/calibrations.yaml")
    scores: Any = free("config/scores.yaml")
    variants: Any = free("config/variants.yaml")
    finetuning: Any = free("config/finetuning.yaml")
    tasks: Any = free("config/tasks.yaml")
    suites: Any = free("suites in config/tasks.yaml")
    experiments: Any = free("config/experiments.yaml")
    plotting: Any = free("config/plotting.yaml")


# What an entry of each section is; of plotting the section itself.
SECTIONS: dict[str, Any] = {
    "models": Model,
    "datasets": Data,
    "calibrations": Calibration,
    "scores": Score,
    "variants": Variant,
    "finetuning": Recipe,
    "tasks": Task,
    "suites": listed(Name),
    "experiments": Experiment,
    "plotting": Plotting,
}
