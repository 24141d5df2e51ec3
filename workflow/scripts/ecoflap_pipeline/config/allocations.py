"""Checks of how a variant shares out its budget. Needs no torch."""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from ecoflap.allocation import METHODS, exact, largest_sparsity
from ecoflap.errors import message
from ecoflap.plugins import missing, unknown
from ecoflap_pipeline.points import is_auto

OF_PLANS = ("score", "budget", "max_sparsity", "strength", "granularity", "reduction", "inside")


def problems(place: str, config: Mapping, variant: Mapping) -> Iterator[str]:
    """Yields what is wrong with the allocation of a variant, or with its candidates.

    Args:
        place: Where it stands, for messages.
        config: The merged configuration.
        variant: The variant.
    """
    if variant.get("max_sparsity") == "auto":
        given = {key: variant[key] for key in ("allocation", "score") if key in variant}
        candidate = ", ".join(f"{key}: {value}" for key, value in given.items())
        yield message(
            f"{place}: max_sparsity auto",
            "+0.1 for p + 0.1, 0.6 for 0.6",
            f"Write allocation: auto with candidates: [{{{candidate}}}] instead of allocation, "
            "score and max_sparsity.",
        )
        return
    if is_auto(variant) != ("candidates" in variant):
        yield message(
            f"{place}: allocation {variant.get('allocation', 'uniform')} with"
            f"{'' if 'candidates' in variant else 'out'} candidates",
            "a list of candidates with the allocation auto, and only there",
            "Add or remove the key candidates.",
        )
        return
    if not is_auto(variant):
        yield from _plan_problems(place, config, variant)
        return
    if further := [key for key in OF_PLANS if key in variant]:
        yield message(
            f"{place}: allocation auto with {', '.join(further)}",
            "these keys in each of the candidates",
            "Move them there.",
        )
    for number, candidate in enumerate(variant["candidates"]):
        yield from _plan_problems(f"{place}.candidates.{number}", config, candidate)


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


def _plan_problems(place: str, config: Mapping, plan: Mapping) -> Iterator[str]:
    allocation = plan.get("allocation", "uniform")
    if allocation not in METHODS:
        yield f"{place}: " + unknown("allocation", allocation, METHODS)
        return
    method = METHODS[allocation]
    if "score" in plan:
        yield from missing(place, "score", [plan["score"]], config["scores"])
    if method.scored != ("score" in plan):
        scored = [name for name, other in METHODS.items() if other.scored]
        yield message(
            f"{place}: allocation {allocation} with{'' if 'score' in plan else 'out'} a score",
            f"a score with the allocations {', '.join(scored)}, and only there",
            "Add or remove the key score.",
        )
    estimator = config["scores"].get(plan.get("score"), {}).get("estimator")
    if method.estimators and estimator not in (None, *method.estimators):
        yield message(
            f"{place}: allocation {allocation} with the estimator {estimator}",
            f"a score with the estimator {' or '.join(method.estimators)}",
            "Choose another score or allocation.",
        )
    for key, used in (
        ("max_sparsity", "bounded"),
        ("strength", "strength"),
        ("granularity", "grouped"),
        ("reduction", "reduced"),
    ):
        if key in plan and not getattr(method, used):
            allowed = [name for name, other in METHODS.items() if getattr(other, used)]
            yield message(
                f"{place}: {key} with the allocation {allocation}",
                f"{key} with {', '.join(allowed)}",
                f"Remove {key}.",
            )
    if "inside" in plan:
        yield from _plan_problems(f"{place}.inside", config, plan["inside"])


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
