"""Calibration sets of one part or of several: their names, shares and order. Needs no torch."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def parts_of(calibration: Mapping) -> list[Mapping]:
    """Returns the parts of a calibration set by name, so that their order in a file is no matter.

    Args:
        calibration: An entry of config/calibrations.yaml; one without ``parts`` is its own part.
    """
    return sorted(calibration["parts"], key=name) if "parts" in calibration else [calibration]


def name(part: Mapping) -> str:
    """Returns what a part is called: it seeds its draw, and its samples bear it."""
    return f"{'/'.join(origin(part))} as {part['format']}"


def origin(part: Mapping) -> tuple[str, ...]:
    """Returns what an example's id is one of: name, split and view of the data set."""
    return tuple(part["dataset"][key] for key in ("name", "split", "view"))


def n_samples(calibration: Mapping) -> int:
    """Returns the samples of a calibration set, over all its parts."""
    return sum(part["samples"] for part in parts_of(calibration))


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Shares a number out in proportion to weights, by the largest remainders.

    Args:
        total: What is shared out.
        weights: Positive; on equal remainders the first gets more.

    Returns:
        Whole numbers that add up to the total.
    """
    quotas = [divmod(total * weight, sum(weights)) for weight in weights]
    missing = total - sum(whole for whole, _ in quotas)
    largest = sorted(range(len(weights)), key=lambda place: -quotas[place][1])[:missing]
    return [whole + (place in largest) for place, (whole, _) in enumerate(quotas)]


def interleaved(lists: Sequence[Sequence[Item]]) -> list[Item]:
    """Mixes lists so that each stretch has its share of every one.

    Item j of n stands at (j + 1/2) / n of the way, the first list first where two are level. So a
    stretch of m items has m n_i / n of list i, give or take 1 + the number of lists times n_i / n.
    """
    places = [
        ((2 * j + 1) / (2 * len(items)), number, item)
        for number, items in enumerate(lists)
        for j, item in enumerate(items)
    ]
    return [item for *_, item in sorted(places, key=lambda entry: entry[:2])]
