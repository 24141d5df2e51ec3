"""Names that configs use, each a module that is imported on first use. Needs no torch.

Adding a score, a criterion, a data set or a model family is a new module and a name here. A module
of another package needs no name here: it is used by its dotted name (``my_package.my_score``).
"""

import difflib
import importlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from ecoflap.errors import ConfigError, message


def suggestion(name: object, known: Iterable[str]) -> str:
    """Returns ``Did you mean 'x'?`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns the message for a name that is not known."""
    known = sorted(known)
    remedy = suggestion(name, known) or "Use one of these, or add an entry of your own."
    return message(f"unknown {kind} '{name}'", ", ".join(known) or "none is defined", remedy)


def missing(place: str, kind: str, names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yields the message for each of some names that is not known, with its place."""
    for name in names:
        if name not in known:
            yield f"{place}: " + unknown(kind, name, known)


def is_dotted(name: object) -> bool:
    """Tells whether a name is that of a module of a package, such as ``my_package.my_score``."""
    parts = str(name).split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


class Registry:
    """Maps names to modules, so that a plug-in which is not used costs nothing."""

    def __init__(self, kind: str, package: str, names: Iterable[str]):
        """Makes a registry.

        Args:
            kind: What the names are, for messages.
            package: Holds one module per name, with ``_`` for ``-``.
            names: The known names.
        """
        self.kind = kind
        self.package = package
        self.names = tuple(names)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        """Tells whether a name can be used: one of the names, or that of a module elsewhere."""
        return name in self.names or is_dotted(name)

    def module_name(self, name: str) -> str:
        """Returns the dotted module of a name.

        Raises:
            ConfigError: if the name is not known.
        """
        if is_dotted(name):
            return name
        if name not in self.names:
            raise ConfigError(unknown(self.kind, name, self.names))
        return f"{self.package}.{name.replace('-', '_')}"

    def get(self, name: str) -> ModuleType:
        """Imports and returns the module of a name.

        Raises:
            ConfigError: if the name is not known, or a module elsewhere cannot be found.
        """
        module = self.module_name(name)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(f"{error.name}.") and error.name != module:
                raise
            raise ConfigError(
                f"no module for the {self.kind} '{name}'",
                allowed=f"{', '.join(self.names)}, or a module that Python finds",
                fix="Put the folder that its package lies in on PYTHONPATH.",
            ) from None


@dataclass(frozen=True)
class Family:
    """What a model family can be calibrated with and evaluated on.

    Attributes:
        formats: Formats of calibration samples.
        tasks: Kinds of task.
        environment: The environment of ``envs`` that its adapter needs.
        contrastive: Whether the samples of a batch are compared with each other, so that a batch
            of one has nothing to learn from.
        logits: Whether a forward returns logits over tokens, which distillation compares.
        image_tokens: Whether tokens of an image stand among those of a text.
        config_file: What a folder with such a model holds.
    """

    formats: tuple[str, ...]
    tasks: tuple[str, ...]
    environment: str = "pipeline"
    contrastive: bool = False
    logits: bool = False
    image_tokens: bool = False
    config_file: str = "config.json"

    @property
    def generates(self) -> bool:
        """Whether its models answer prompts in words of their own."""
        return any(TASKS[kind].written for kind in self.tasks)


@dataclass(frozen=True)
class Task:
    """What a kind of task asks and measures.

    Attributes:
        metrics: What it can measure.
        view: What its examples must hold; empty for a view with classes, or for no data set.
        placeholders: What its prompt must hold.
        written: Whether the model answers in texts that are generated.
        formats: Formats of samples that show a model what the task shows it.
        hub: Its name in the hub's index of results.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    view: str = ""
    placeholders: tuple[str, ...] = ()
    written: bool = False
    formats: tuple[str, ...] = ()
    hub: str = "other"


RECALL = ("tr1", "tr5", "tr10", "ir1", "ir5", "ir10")
TASKS = {
    "vqa": Task(
        view="vqa",
        placeholders=("question",),
        written=True,
        formats=("question-answer",),
        hub="visual-question-answering",
    ),
    "captioning": Task(
        ("cider", "spice"),
        view="captions",
        written=True,
        formats=("prompt-caption", "image-caption"),
        hub="image-to-text",
    ),
    "retrieval": Task(("tr1", "ir1"), view="retrieval", formats=("prompt-caption",)),
    "corpus-retrieval": Task(RECALL, view="captions", formats=("image-caption",)),
    "classification": Task(
        placeholders=("label",), formats=("image-label",), hub="zero-shot-image-classification"
    ),
    "multiple-choice": Task(hub="multiple-choice"),
    "perplexity": Task(("perplexity",), view="text", hub="text-generation"),
    "image-pair": Task(formats=("image-pair",)),
}
# What the examples of a calibration format must hold; the views that are not named here or above
# are zero-shot classification tasks.
VIEWS = {
    "prefix-target": "captions",
    "image-caption": "captions",
    "prompt-caption": "captions",
    "question-answer": "vqa",
    "image-pair": "pairs",
    "text-windows": "text",
    "text-prefix-target": "text",
    **{kind: task.view for kind, task in TASKS.items() if task.view},
}
# What tasks measure, as a reader sees it.
METRIC_LABELS = {
    "accuracy": "accuracy",
    "cider": "CIDEr",
    "spice": "SPICE",
    "tr1": "TR@1",
    "tr5": "TR@5",
    "tr10": "TR@10",
    "ir1": "IR@1",
    "ir5": "IR@5",
    "ir10": "IR@10",
    "perplexity": "perplexity",
}
PERCENT = tuple(metric for metric in METRIC_LABELS if metric != "perplexity")  # stored as fractions
IMPORTED = "imported"  # instead of a criterion: the variant is a published checkpoint
# No allocation: one threshold for many matrices, or weights that are given.
WHOLE_MODEL = ("global-magnitude", "iterative-obd", IMPORTED)
CRITERIA = Registry(
    "criterion", "ecoflap.criteria", ("magnitude", "wanda", "ria", "sparsegpt", "admm")
)
RIDGED = ("sparsegpt", "admm")  # those of them that invert X^T X: they take a ridge
SCORES = Registry(
    "score",
    "ecoflap.scores",
    (
        "zeroth",
        "gradnorm",
        "first",
        "fisher",
        "magnitude",
        "local-wanda",
        "local-sparsegpt",
        "outliers",
        "medians",
        "spectrum",
        "spectrum-middle",
        "elements",
        "elements-magnitude",
        "lamp",
    ),
)
LOSS_SCORES = ("zeroth", "gradnorm", "first", "fisher", "elements")  # the others look at no loss


def reads_loss(estimator: object) -> bool:
    """Tells whether a score comes from a loss; one of another package may."""
    return estimator in LOSS_SCORES or is_dotted(estimator)


DATASETS = Registry("data set", "ecoflap.data.builtin", ("scenes", "easy-vqa", "wikitext-2"))
FROM_HUB = ("wikitext-2",)  # those of them that are fetched; the others are made or installed
# Forms in which data sets of others come; config/datasets.yaml says which data set has which.
LAYOUTS = Registry(
    "layout",
    "ecoflap.data.layouts",
    (
        "vqa",
        "gqa",
        "karpathy",
        "coco-captions",
        "nlvr2",
        "class-folders",
        "coop",
        "fgvc-aircraft",
        "image-text",
        "hub",
    ),
)
ADAPTERS = Registry(
    "model family",
    "ecoflap.models.adapters",
    (
        "blip2",
        "blip2-matching",
        "blip-vqa",
        "blip-captioning",
        "blip-retrieval",
        "image-text",
        "clip",
        "seq2seq",
        "causal-lm",
        "blip-nlvr",
        "open-clip",
        "generic",
    ),
)
GENERATION = ("prefix-target", "prompt-caption", "question-answer")
FAMILIES = {
    "blip2": Family(GENERATION, ("vqa", "captioning", "retrieval"), logits=True, image_tokens=True),
    "blip2-matching": Family(("image-caption",), ("corpus-retrieval",), contrastive=True),
    "blip-vqa": Family(("question-answer",), ("vqa",)),
    "blip-captioning": Family(("image-caption",), ("captioning",), logits=True),
    "blip-retrieval": Family(("image-caption",), ("corpus-retrieval",), contrastive=True),
    "image-text": Family(
        GENERATION, ("vqa", "captioning", "retrieval"), logits=True, image_tokens=True
    ),
    "clip": Family(
        ("image-caption", "image-label"), ("classification", "corpus-retrieval"), contrastive=True
    ),
    "seq2seq": Family(("text-prefix-target",), ("multiple-choice",), logits=True),
    "causal-lm": Family(("text-windows",), ("perplexity", "multiple-choice"), logits=True),
    "blip-nlvr": Family(("image-pair",), ("image-pair",), environment="lavis"),
    "open-clip": Family(
        ("image-caption", "image-label"),
        ("classification", "corpus-retrieval"),
        environment="open-clip",
        contrastive=True,
        config_file="open_clip_config.json",
    ),
}
# What a calibration sample can be.
FORMATS = tuple(dict.fromkeys(form for each in FAMILIES.values() for form in each.formats))
# Environments other than the pipeline's own, and the package that tells each.
ENVIRONMENTS = {"lavis": "lavis", "open-clip": "open_clip"}
