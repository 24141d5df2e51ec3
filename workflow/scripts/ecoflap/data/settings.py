"""Checks that samples and their data fit each other, for a configuration and for Python alike.

Needs no torch, and nothing else of the configuration, whose changes would train every model again.
"""

from collections.abc import Iterator, Mapping
from string import Formatter

from ecoflap.errors import message
from ecoflap.plugins import VIEWS

# The formats of samples that have a prompt, and the kind of task whose prompt is of the same form.
SAMPLE_PROMPTS = {
    "image-label": "classification",
    "question-answer": "vqa",
    "prompt-caption": "captioning",
}
PLACEHOLDERS = {"vqa": {"question"}, "classification": {"label"}}


def sample_problems(samples: Mapping) -> Iterator[str]:
    """Yields what of view, window and prompt does not fit the format of samples.

    Args:
        samples: An entry of config/calibrations.yaml, or of the data of config/finetuning.yaml.
    """
    form, prompted = samples["format"], "prompt" in samples
    yield from view_problems(form, samples["dataset"]["view"])
    if (form == "text-windows") != ("window" in samples):
        yield message(
            f"{'a' if 'window' in samples else 'no'} window with {form}",
            "tokens per window with text-windows, and only there",
            "Add for example window: 2048, or remove it.",
        )
    if prompted and form not in SAMPLE_PROMPTS:
        yield message(
            f"a prompt with {form}", f"a prompt with {', '.join(SAMPLE_PROMPTS)} only", "Remove it."
        )
    elif prompted:
        yield from prompt_problems(SAMPLE_PROMPTS[form], samples["prompt"])
    elif form in ("image-label", "prompt-caption"):
        example = "a photo of a {label}." if form == "image-label" else ""
        yield message(
            f"no prompt with {form}",
            "a prompt with image-label and prompt-caption",
            f'Add for example prompt: "{example}".',
        )


def view_problems(use: str, view: str) -> Iterator[str]:
    """Yields whether a view of a data set does not fit a format of samples or a kind of task."""
    allowed, named = VIEWS.get(use), set(VIEWS.values()) | {"retrieval"}
    if view != allowed if allowed else view in named:
        yield message(
            f"{use} with the view '{view}'",
            allowed or "a view with classes",
            "Choose another view of the data set.",
        )


def prompt_problems(kind: str, prompt: str) -> Iterator[str]:
    """Yields whether a prompt has other placeholders than those of a kind of task."""
    wanted = PLACEHOLDERS.get(kind, set())
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
