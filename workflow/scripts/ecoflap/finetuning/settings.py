"""What `finetune` is asked for, for a configuration and for Python alike. Needs no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ecoflap.data.settings import Drawn, plain
from ecoflap.finetuning.step_settings import lone_problems
from ecoflap.plugins import FAMILIES, unknown
from ecoflap.schema import Count, Entry, Natural, Positive, fill, free, key, problems, refuse

if TYPE_CHECKING:
    from ecoflap.models.model import Model


class Lesson(Drawn):
    """A part of what is learned from."""

    samples: Count = free("Samples drawn without replacement.", usual="all that are not held out")
    held_out: Natural = free(
        "Further samples that no entry learns from and whose loss is measured after about each "
        "tenth of a run.",
        usual=0,
    )


class Recipe(Entry):
    """A way to train a pruned model. Read by `finetune_model`."""

    KIND, KINDS = "method", {}
    method: Literal["full", "sparselora"] = key(
        "full trains every parameter, what was pruned stays zero; sparselora trains a masked "
        "low-rank update of each pruned matrix."
    )
    data: Annotated[list[Lesson], Field(min_length=1)] = key(
        "What is learned from, mixed at random; never a split that a task evaluates."
    )
    epochs: Count = key(
        "How often each sample is seen, but for the last few of an epoch that fill no batch."
    )
    learning_rate: Positive = key("Peak of the cosine that ends at 0.")
    warmup: Natural = key("Steps in which the rate rises to its peak.", 0)
    weight_decay: Annotated[float, Field(ge=0)] = key(
        "Share of a weight that AdamW takes off per step, times the learning rate.", 0.05
    )
    batch_size: Count = key(
        "Samples per step, over all processes; more than the model's own batch_size run one part "
        "after the other."
    )
    distillation: Annotated[float, Field(gt=0, le=1)] = free(
        "Share of the distance from the dense model's logits in the loss.", usual="none"
    )
    precision: Literal["float32", "bfloat16"] = key(
        "What a forward computes in; weights and optimizer are float32.", "bfloat16"
    )


class Full(Recipe, kind="full"):
    """Trains every parameter."""


class SparseLora(Recipe, kind="sparselora"):
    """Trains low-rank updates."""

    rank: Count = key("Rank of the updates, at most the shortest side of a pruned matrix.")


class Arguments(Entry):
    """Arguments of `finetune` beside its settings."""

    batch_size: Count = key("Samples per forward.")
    seed: Natural = key("Seed of the run.")


def _unfit_formats(data: Sequence[Mapping], formats: Sequence[str]) -> Iterator[str]:
    for number, part in enumerate(data):
        if part["format"] not in formats:
            told = unknown("format of samples for this model", part["format"], formats)
            yield f"data.{number}: {told}"


def checked(model: "Model", settings: Mapping, *, batch_size: int, seed: int) -> dict:
    """Returns settings with their defaults.

    Args:
        model: What is to be trained.
        settings: Keys of config/finetuning.yaml.
        batch_size: Samples per forward.
        seed: Of the run.

    Raises:
        ConfigError: naming all that is wrong.
    """
    filled, asked, family = dict(settings), plain(settings), FAMILIES.get(model.family)
    fill(Recipe, filled)
    found = list(problems(Recipe, asked))
    found += problems(Arguments, plain({"batch_size": batch_size, "seed": seed}), "arguments")
    if family and not found:
        found += _unfit_formats(filled["data"], family.formats)
    if not found and family and family.contrastive:
        found += lone_problems(filled, batch_size)
    refuse(found, "the settings of fine-tuning have")
    return filled
