"""Checks what a configuration says about calibration sets and who takes them. Needs no torch."""

from collections.abc import Iterator, Mapping

from ecoflap.data import mixes
from ecoflap.errors import message
from ecoflap.plugins import FAMILIES
from ecoflap_pipeline.points import needs_plan, needs_samples

# What not every family can do: what it does without being asked, and the field that says it can.
ABILITIES = {"tokens": ("all", "image_tokens"), "targets": ("data", "generates")}


def model_problems(place: str, model: Mapping, name: str, calibration: Mapping) -> Iterator[str]:
    """Yields why a model cannot be calibrated with a set.

    Args:
        place: Where it is asked for, for messages.
        model: An entry of config/models.yaml, whose family is known.
        name: The calibration set.
        calibration: Its entry.
    """
    family = FAMILIES[model["family"]]
    for seen in dict.fromkeys(part["format"] for part in mixes.parts_of(calibration)):
        if seen not in family.formats:
            yield message(
                f"{place}: calibration '{name}' has the format {seen}",
                f"{', '.join(family.formats)} for the family {model['family']}",
                "Choose another calibration set.",
            )
    for key, (usual, ability) in ABILITIES.items():
        asked = calibration.get(key, usual)
        if asked != usual and not getattr(family, ability):
            able = [other for other, entry in FAMILIES.items() if getattr(entry, ability)]
            yield message(
                f"{place}: calibration '{name}' has {key}: {asked}",
                f"{key}: {usual} for the family {model['family']}; {asked} for {', '.join(able)}",
                "Choose another calibration set.",
            )


def criterion_problems(
    place: str, config: Mapping, calibration: str, variant: Mapping
) -> Iterator[str]:
    """Yields whether a baseline that takes no statistics is to count some tokens alone.

    Args:
        place: Where it is asked for, for messages.
        config: The merged configuration.
        calibration: The set that the variant is calibrated with.
        variant: An entry of config/variants.yaml that is pruned.
    """
    tokens = config["calibrations"].get(calibration, {}).get("tokens", "all")
    if tokens != "all" and needs_samples(variant) and not needs_plan(variant):
        yield message(
            f"{place}: tokens: {tokens} with {variant['criterion']}",
            "tokens: all for criteria that read no inputs of matrices",
            "Choose another calibration set.",
        )
