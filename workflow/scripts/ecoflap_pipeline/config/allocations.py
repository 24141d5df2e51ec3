"""Checks of how a variant shares out its budget. Needs no torch."""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from ecoflap.allocation import METHODS, exact, largest_sparsity
from ecoflap.errors import message
from ecoflap.plugins import missing


def problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    """Yields scores of the allocations of a variant that are not there, or not made for them.

    Args:
        place: Where it stands, for messages.
        config: The merged configuration.
        variant: The variant.
    """
    plans = [(place, variant)]
    for number, candidate in enumerate(variant.get("candidates", ())):
        plans.append((f"{place}.candidates.{number}", candidate))
    plans += [(f"{where}.inside", plan["inside"]) for where, plan in plans if "inside" in plan]
    for where, plan in plans:
        if "score" not in plan:
            continue
        yield from missing(where, "score", [plan["score"]], config["scores"])
        estimator = config["scores"].get(plan["score"], {}).get("estimator")
        able = METHODS[plan.get("allocation", "uniform")].estimators
        if able and estimator not in (None, *able):
            yield message(
                f"{where}: allocation {plan.get('allocation')} with the estimator {estimator}",
                f"a score with the estimator {' or '.join(able)}",
                "Choose another score or allocation.",
            )


def sparsity_problems(place: str, variant: Mapping, sparsity: str) -> Iterator[str]:
    """Yields what is wrong with a sparsity for the allocation of a variant.

    Args:
        place: Where it stands, for messages.
        variant: The variant.
        sparsity: Fraction removed, above 0.
    """
    p = exact(sparsity)
    for plan in variant.get("candidates", [variant]):
        given = plan.get("max_sparsity", "+0.1")
        if exact(largest_sparsity(sparsity, given)) < p:
            yield message(
                f"{place}: max_sparsity (p_max) {given} is below {sparsity}",
                f"at least {sparsity}, or a margin such as +0.1",
                "Raise max_sparsity of the variant.",
            )
        yield from _pattern_problems(place, plan, variant.get("pattern", ""), p)


def _pattern_problems(place: str, plan: Mapping, pattern: str, sparsity: Fraction) -> Iterator[str]:
    kept, colon, of = pattern.partition(":")
    if not colon:
        return
    if kept != "n" and int(kept) >= int(of):
        yield message(
            f"{place}: the pattern {pattern} removes nothing",
            f"N:{of} with N below {of}",
            "Correct the pattern of the variant.",
        )
        return
    share = (1 - sparsity) * int(of)  # of each M weights, what stays
    allocation = plan.get("allocation", "uniform")
    uniform = allocation == "uniform" and "inside" not in plan
    if (kept != "n" or uniform) and share != (int(kept) if kept.isdecimal() else round(share)):
        yield message(
            f"{place}: sparsity {float(sparsity)} with the pattern {pattern}",
            f"a sparsity of 1 - N/{of}",
            "Correct the sparsity of the experiment or the pattern of the variant.",
        )
    if kept != "n" and not uniform:
        yield message(
            f"{place}: allocation {allocation} with the pattern {pattern}",
            f"n:{of}, so that each group gets an N of its own",
            f"Set pattern: n:{of}, or allocation: uniform.",
        )
    if kept == "n" and plan.get("inside", {}).get("allocation") == "uniform":
        yield message(
            f"{place}: uniform inside of {allocation} with the pattern {pattern}",
            "an allocation inside that gives each group an N of its own",
            "Choose another one, or remove the pattern.",
        )
