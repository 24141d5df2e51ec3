"""Checks what a configuration says about fine-tuning. Needs no torch."""

from collections.abc import Iterator, Mapping

from ecoflap.errors import message
from ecoflap.finetuning.step_settings import lone_problems, step_problems
from ecoflap.plugins import FAMILIES, missing
from ecoflap_pipeline.config.data import limit_problems, most_examples
from ecoflap_pipeline.points import finetuning_of


def recipe_problems(config: Mapping) -> Iterator[str]:
    """Yields the ways to fine-tune that are no run, as far as that can be told without the data.

    Args:
        config: The merged configuration, defaults filled in.
    """
    for name, settings in config["finetuning"].items():
        short = False
        for number, part in enumerate(settings["data"]):
            place = f"finetuning.{name}.data.{number}"
            found = list(limit_problems(place, part, part.get("held_out", 0)))
            yield from found
            short = short or bool(found)
        counts = [_most_samples(part) for part in settings["data"]]
        most = [count for count in counts if count is not None]
        if not short and len(most) == len(counts):
            for problem in step_problems(settings, sum(most)):
                yield f"finetuning.{name}: {problem}"


def _most_samples(part: Mapping) -> int | None:
    """Returns how many samples a part of the data has at most; None if that is not known."""
    most = most_examples(part)
    return part.get("samples", most and most - part.get("held_out", 0))


def variant_problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    """Yields what is wrong with a fine-tuned variant, whatever the model.

    Args:
        place: Where it stands, for messages.
        config: The merged configuration.
        variant: An entry of config/variants.yaml with ``from`` and ``finetune``.
    """
    source, entries = variant["from"], config["variants"]
    pruned = [name for name, entry in entries.items() if "from" not in entry]
    if source in entries and source not in pruned:
        yield message(
            f"{place}.from: '{source}' is fine-tuned itself",
            f"a variant that is pruned: {', '.join(pruned)}",
            "Choose one.",
        )
    else:
        yield from missing(f"{place}.from", "pruned variant", [source], pruned)
    named = variant["finetune"]
    recipes = list(named.values()) if isinstance(named, Mapping) else [named]
    yield from missing(f"{place}.finetune", "way to fine-tune", recipes, config["finetuning"])
    if isinstance(named, Mapping):
        yield from missing(f"{place}.finetune", "model", named, config["models"])


def model_problems(config: Mapping, model_name: str, variant: str) -> Iterator[str]:
    """Yields what is wrong with fine-tuning a model; nothing if the variant is not fine-tuned.

    Args:
        config: The merged configuration.
        model_name: The model.
        variant: The variant.
    """
    named = config["variants"][variant].get("finetune")
    if named is None:
        return
    model, place = config["models"][model_name], f"variants.{variant}, model '{model_name}'"
    if isinstance(named, Mapping) and model_name not in named:
        yield message(
            f"{place}: no way to fine-tune it",
            f"models {', '.join(named)}",
            "Add the model to finetune of the variant.",
        )
        return
    if "towers_from" in model:
        yield message(
            f"{place}: fine-tuning of a model with towers of another",
            "fine-tuning of models that are pruned themselves",
            "Take the variant or the model out of the experiment that has both.",
        )
    entry = config["finetuning"].get(finetuning_of(config, model_name, variant))
    if entry is None:
        return  # told with the variant
    family = FAMILIES[model["family"]]
    for seen in sorted({part["format"] for part in entry["data"]} - set(family.formats)):
        yield message(
            f"{place}: fine-tuning on samples of the format {seen}",
            f"{', '.join(family.formats)} for the family {model['family']}",
            "Choose another way to fine-tune, or another model.",
        )
    if family.contrastive:
        for problem in lone_problems(entry, model["batch_size"]):
            yield f"{place}: {problem}"
    if "distillation" in entry and not family.logits:
        able = ", ".join(name for name, other in FAMILIES.items() if other.logits)
        yield message(
            f"{place}: distillation of the family {model['family']}, which returns no logits",
            f"distillation of {able}",
            "Choose a way to fine-tune without distillation.",
        )
