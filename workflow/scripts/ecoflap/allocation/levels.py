"""Plans from settings: of one level, of two, and at every strength."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecoflap.allocation.integers import Sparsity
from ecoflap.allocation.methods import METHODS
from ecoflap.allocation.plan import allocate
from ecoflap.allocation.units import shares

if TYPE_CHECKING:
    import pandas as pd


def plan_from(
    scores: Mapping[str | None, "pd.DataFrame"],
    settings: Mapping[str, Any],
    sparsity: Sparsity | Mapping[str, Sparsity],
) -> "pd.DataFrame":
    """Makes a plan of one level, or of two.

    With ``inside``, what a first plan keeps in each stack of blocks is shared out anew in that
    stack by another allocation: the one compares stacks, the other blocks of one stack.

    Args:
        scores: What `ecoflap.score` returned, by the names that the settings use; None: the
            matrices, for an allocation without a score.
        settings: Arguments of `allocate`, ``score`` (a name), and ``inside``: settings again.
        sparsity: As for `allocate`.

    Returns:
        The plan, as of `allocate`: each stack keeps exactly what the first plan keeps there.

    Raises:
        AllocationError: as `allocate`.
    """
    own = {key: value for key, value in settings.items() if key not in ("score", "inside")}
    plan = allocate(scores[settings.get("score")], sparsity=sparsity, **own)
    if "inside" not in settings:
        return plan
    return plan_from(scores, settings["inside"], shares(plan))


def each_strength(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns settings with each strength that is tried, or as they are if they say one.

    Args:
        settings: Arguments of `plan_from`; of two levels each strength of the one is tried with
            each of the other.
    """
    method = METHODS[settings.get("method", "ecoflap")]
    said = method.dial in settings or not method.tried
    outer = [dict(settings)] if said else [{**settings, method.dial: s} for s in method.tried]
    if "inside" not in settings:
        return outer
    return [{**o, "inside": inner} for o in outer for inner in each_strength(settings["inside"])]


def strength_of(settings: Mapping[str, Any]) -> str:
    """Returns the strengths that settings say, the outer level's first; empty where there is none.

    Args:
        settings: One of what `each_strength` returned.
    """
    said = settings.get(METHODS[settings.get("method", "ecoflap")].dial, "")
    inner = [strength_of(settings["inside"])] if "inside" in settings else []
    return ", ".join(str(strength) for strength in [said, *inner] if strength != "")
