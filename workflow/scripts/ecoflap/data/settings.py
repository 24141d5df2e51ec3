"""What a calibration set is drawn from, for a configuration and for Python. Needs no torch."""

import numbers
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field

from ecoflap.data import mixes
from ecoflap.data.wording import MOST_WORDS, PROCESSORS
from ecoflap.errors import message
from ecoflap.plugins import FORMATS, TASKS, VIEWS
from ecoflap.schema import Count, Entry, Name, free, key, problems, refuse

# The formats of samples that have a prompt, and the kind of task whose prompt is of the same form.
SAMPLE_PROMPTS = {
    "image-label": "classification",
    "question-answer": "vqa",
    "prompt-caption": "captioning",
}
SPLIT = ("prefix-target", "text-prefix-target")  # into a prompt and a target
READ = (*SPLIT, "prompt-caption", "image-caption", "question-answer")  # questions and captions
ANSWERED = ("prefix-target", "prompt-caption", "question-answer")  # with a prompt and a target
LOCATED = ("layout", "folder", "hub", "revision", "files", "columns")  # where a data set is
Tokens = Annotated[int, Field(ge=2)]


class Dataset(Entry):
    """Examples of a data set."""

    name: Name = key("A built-in data set, or an entry of config/datasets.yaml.")
    split: Name = key("Split of the data set.")
    view: Name = key("What its examples hold.")
    limit: Count = free("Random examples to draw from, the same for each seed.", usual="all")
    separator: str = free(
        "What stands between the rows of wikitext-2; GPTQ, SparseGPT and Wanda take two line ends.",
        usual="nothing: each row ends as in its file",
    )


class Worded(Entry):
    """What rewrites texts."""

    text_processor: Literal[tuple(PROCESSORS)] = free(
        "How questions or captions are rewritten first, as in LAVIS: lower case, and some marks go "
        "(question) or become blanks (caption).",
        usual="none",
    )
    max_words: Count = free("Words that a text processor leaves of a text.", usual=MOST_WORDS)

    def mistakes(self) -> Iterator[str]:
        """Yields a number of words that nothing counts."""
        if self.max_words is not None and self.text_processor is None:
            yield message(
                "max_words without a text_processor", "both or none", "Add it, or remove max_words."
            )


class Drawn(Worded):
    """What is drawn from one place."""

    dataset: Dataset = key("Where samples are drawn from; never a split that a task evaluates.")
    format: Literal[FORMATS] = key(
        "How an example becomes a sample with a loss: prefix-target, prompt-caption and "
        "image-caption of captions, question-answer of questions, image-label of classes, "
        "image-pair of NLVR2, text-windows and text-prefix-target of text."
    )
    prompt: str = free(
        "image-label: a caption made from a class, with {label}; prompt-caption: what stands "
        "before a caption; question-answer: what a question becomes, with {question}."
    )
    window: Tokens = free("Tokens per window (text-windows).")
    cut: Literal["words", "characters"] = free(
        "Where prefix-target and text-prefix-target split a text: between words anywhere, or "
        "between characters of its first half, as published.",
        usual="words",
    )

    def mistakes(self) -> Iterator[str]:
        """Yields what of view, window, cut and prompt does not fit the format of samples."""
        yield from Worded.mistakes(self)
        for name, able in (("text_processor", READ), ("cut", SPLIT)):
            if getattr(self, name) is not None and self.format not in able:
                allowed = f"{name} with {', '.join(able)}"
                yield message(f"{name} with {self.format}", allowed, "Remove it.")
        yield from view_problems(self.format, self.dataset.view)
        if (self.format == "text-windows") != (self.window is not None):
            yield message(
                f"{'no' if self.window is None else 'a'} window with {self.format}",
                "tokens per window with text-windows, and only there",
                "Add for example window: 2048, or remove it.",
            )
        if self.prompt is not None and self.format not in SAMPLE_PROMPTS:
            prompted = f"a prompt with {', '.join(SAMPLE_PROMPTS)} only"
            yield message(f"a prompt with {self.format}", prompted, "Remove it.")
        elif self.prompt is not None:
            yield from prompt_problems(SAMPLE_PROMPTS[self.format], self.prompt)
        elif self.format in ("image-label", "prompt-caption"):
            example = "a photo of a {label}." if self.format == "image-label" else ""
            yield message(
                f"no prompt with {self.format}",
                "a prompt with image-label and prompt-caption",
                f'Add for example prompt: "{example}".',
            )


class Part(Drawn):
    """A part of a mix."""

    samples: Count = key("Samples drawn without replacement.")


class Calibration(Entry):
    """A calibration set. Read by `extract_calibration`, `choose_plan` and `prune_model`."""

    KINDS = {}
    NEEDED = ("dataset", "format", "samples; or parts")
    held_out: Count = key(
        "Further samples, for `allocation: auto` and `search`; of each part of a mix its share.", 32
    )
    tokens: Literal["all", "text", "drift"] = free(
        "What counts in the statistics of the pruning pass in a language tower with image tokens "
        "among its text: all; text, no image tokens; drift, of each sample those image tokens "
        "that a block changes most.",
        usual="all",
    )
    targets: Literal["data", "generated"] = free(
        "Whose targets: those of the data, or what the dense model answers to the prompts.",
        usual="data",
    )
    max_new_tokens: Count = free("Length limit of a generated answer.", usual=40)

    @classmethod
    def of(cls, content: Mapping) -> type[Entry]:
        """Returns what an entry is meant to be."""
        return Mix if "parts" in content else OnePlace

    def drawn(self) -> list[Any]:
        """Returns what is drawn from one place each: this entry itself where it is no mix."""
        return [self]

    def mistakes(self) -> Iterator[str]:
        """Yields targets that do not fit, whatever the model."""
        generated = self.targets == "generated"
        if self.max_new_tokens is not None and not generated:
            yield message(
                "max_new_tokens with the targets of the data",
                "max_new_tokens with targets: generated, and only there",
                "Remove it.",
            )
        for form in dict.fromkeys(part.format for part in self.drawn()):
            if generated and form not in ANSWERED:
                yield message(
                    f"targets: generated with the format {form}",
                    f"formats with a prompt and a target: {', '.join(ANSWERED)}",
                    "Choose another format, or take the targets of the data.",
                )


class OnePlace(Calibration, Part, kind="one place"):
    """A calibration set of one place."""

    def mistakes(self) -> Iterator[str]:
        """Yields what does not fit the format, and targets that do not."""
        yield from Part.mistakes(self)
        yield from Calibration.mistakes(self)


class Mix(Calibration, kind="a mix"):
    """A calibration set of several places."""

    parts: Annotated[list[Part], Field(min_length=1)] = key(
        "A mix: what is drawn from several places and interleaved, each with dataset, format, "
        "samples, prompt and window of its own."
    )

    def drawn(self) -> list[Part]:
        """Returns what is drawn from one place each."""
        return self.parts

    def mistakes(self) -> Iterator[str]:
        """Yields parts that cannot be mixed."""
        names = [mixes.name(part.model_dump()) for part in self.parts]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield message(
                f"two parts of {name}, which would draw the same samples",
                "one part of each data set, view and format",
                "Join them.",
            )
        if len({part.window for part in self.parts}) > 1:
            yield message(
                "parts with other windows than others",
                "windows of one length, which can be stacked",
                "Give all parts one window, or make sets of their own.",
            )
        yield from Calibration.mistakes(self)


def view_problems(use: str, view: str) -> Iterator[str]:
    """Yields whether a view of a data set does not fit a format of samples or a kind of task."""
    allowed, named = VIEWS.get(use), set(VIEWS.values())
    if view != allowed if allowed else view in named:
        yield message(
            f"{use} with the view '{view}'",
            allowed or "a view with classes",
            "Choose another view of the data set.",
        )


def prompt_problems(kind: str, prompt: str) -> Iterator[str]:
    """Yields whether a prompt has other placeholders than those of a kind of task."""
    wanted = set(TASKS[kind].placeholders)
    try:
        fields = [field for _, *field in Formatter().parse(prompt)]
        plain = all(not spec and not conversion for _, spec, conversion in fields)
        found = {name for name, _, _ in fields if name is not None}
    except ValueError:
        plain, found = False, set()
    if not plain or found != wanted:
        yield message(
            f"prompt {prompt!r}",
            " ".join(f"{{{name}}}" for name in wanted) or "no placeholder",
            "Correct the template.",
        )


def plain(value: object, name: str = "") -> object:
    """Returns settings from Python as a file would hold them, without where data sets are."""
    if isinstance(value, Mapping):
        left_out = LOCATED if name == "dataset" else ()
        return {key: plain(each, key) for key, each in value.items() if key not in left_out}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, numbers.Real) and not isinstance(value, bool):  # also those of numpy
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value


def check(calibration: Mapping) -> None:
    """Refuses settings of a calibration set that are wrong.

    Args:
        calibration: An entry of config/calibrations.yaml; its data may be located.

    Raises:
        ConfigError: naming all that is wrong.
    """
    refuse(problems(Calibration, plain(calibration)), "the settings of the samples have")
