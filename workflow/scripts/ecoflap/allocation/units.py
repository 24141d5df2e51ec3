"""What meets a budget exactly: the whole model, each tower, or each stack of blocks."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ecoflap.allocation.integers import Sparsity
from ecoflap.errors import AllocationError
from ecoflap.plugins import unknown

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = ("model", "tower", "stack")


def stack_of(block: str) -> str:
    """Returns the stack of a block: the list that it stands in, by its name up to the first index.

    The blocks of a list run one after the other, on tokens of one kind: a vision tower and a
    decoder-only model are one stack each, an encoder-decoder is two. Stages of a list of lists are
    one stack.
    """
    parts = str(block).split(".")
    length = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[:length])


def units(table: "pd.DataFrame", budget: str) -> np.ndarray:
    """Returns the tower, the stack or the model that each matrix of a table belongs to.

    Args:
        table: One row per matrix: tower, block.
        budget: ``model``, ``tower`` or ``stack``.

    Raises:
        AllocationError: for another budget.
    """
    if budget not in BUDGETS:
        raise AllocationError(unknown("budget", budget, BUDGETS))
    if budget == "model":
        return np.full(len(table), "model", dtype=object)
    column = table["tower"] if budget == "tower" else table["block"].map(stack_of)
    return column.to_numpy(dtype=object)


def shares(plan: "pd.DataFrame") -> dict[str, str]:
    """Returns the sparsity of each stack of a plan, for an allocation inside of them.

    Args:
        plan: What `allocate` returned.

    Returns:
        Stack to its sparsity, as a fraction in text that is exact: ``3/7``.
    """
    sums = plan.groupby(units(plan, "stack"), sort=False)[["keep", "n_weights"]].sum()
    return {stack: f"{n - keep}/{n}" for stack, keep, n in sums[["keep", "n_weights"]].itertuples()}


def parts(
    table: "pd.DataFrame",
    budget: str,
    sparsity: Sparsity | Mapping[str, Sparsity],
    max_sparsity: Sparsity | Mapping[str, Sparsity],
) -> Iterator[tuple[str, np.ndarray, Sparsity, Sparsity]]:
    """Yields what has a budget of its own: a label, rows of the table, sparsity and p_max.

    Args:
        table: One row per matrix: tower, block.
        budget: What meets one sparsity for all exactly.
        sparsity: One for all, or one by tower or stack, which then decides what has a budget.
        max_sparsity: One for all, or one for each of those that ``sparsity`` names.

    Raises:
        AllocationError: for an unknown budget and names of other towers or stacks.
    """
    each = isinstance(sparsity, Mapping)
    if each:
        budget = _named(table, sparsity)
    elif isinstance(max_sparsity, Mapping):
        raise AllocationError(
            f"max_sparsity for each of {', '.join(max_sparsity)} with one sparsity {sparsity}",
            allowed="a sparsity for each tower or stack, or one max_sparsity",
            fix="Give both for each.",
        )
    column = units(table, budget)
    if isinstance(max_sparsity, Mapping) and set(max_sparsity) != set(column):
        raise _misnamed("max_sparsity", max_sparsity, column)
    for name in dict.fromkeys(column):
        p = sparsity[name] if each else sparsity
        p_max = max_sparsity[name] if isinstance(max_sparsity, Mapping) else max_sparsity
        label = "" if budget == "model" else f"{budget} {name}: "
        yield label, np.flatnonzero(column == name), p, p_max


def _named(table: "pd.DataFrame", sparsity: Mapping) -> str:
    """Tells whether a mapping names the towers or the stacks."""
    columns = {budget: units(table, budget) for budget in ("tower", "stack")}
    for budget, column in columns.items():
        if set(sparsity) == set(column):
            return budget
    raise _misnamed("sparsity", sparsity, *columns.values())


def _misnamed(what: str, given: Mapping, *columns: np.ndarray) -> AllocationError:
    allowed = " or ".join(", ".join(dict.fromkeys(column)) for column in columns)
    return AllocationError(
        f"{what} for {', '.join(given) or '(nothing)'}",
        allowed=allowed,
        fix="Name every tower or every stack, or give one number for the whole model.",
    )
