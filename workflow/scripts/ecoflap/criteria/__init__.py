"""Which weights of one matrix go. Stateless: weight and activations in, weight and mask out.

A criterion is a module with

* ``UPDATES_WEIGHTS``: whether the weights that stay change too,
* ``NEEDS_INPUTS``: whether it cannot do without activations,
* ``statistics(inputs)``: what it needs of the activations, a tensor that adds up over
  batches, or ``None`` if it looks at the weights alone,
* ``prune(weight, statistics, selection)``: the pruned weight and the mask; those in `RIDGED` take
  a ``ridge`` too.

The same arguments give the same result: a criterion is given no seed.
"""

import math

import torch

from ecoflap.criteria._selection import UNSTRUCTURED, Selection
from ecoflap.errors import PruningError
from ecoflap.plugins import CRITERIA, RIDGED

__all__ = ["Selection", "prune_matrix"]


def prune_matrix(
    weight: torch.Tensor,
    inputs: torch.Tensor | None,
    *,
    sparsity: float,
    criterion: str,
    pattern: str = UNSTRUCTURED,
    group: str = "row",
    ridge: str | float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prunes one matrix.

    Args:
        weight: [n_out, n_in], not changed.
        inputs: Activations [n_tokens, n_in]; may be None for ``magnitude``.
        sparsity: Fraction of the weights to remove, in [0, 1].
        criterion: ``magnitude``, ``wanda``, ``ria``, ``sparsegpt`` or ``admm``.
        pattern: ``unstructured``; ``N:M``, such as ``2:4``: N of each M neighbours in a row stay;
            or ``n:M``: the same with the N that the sparsity says.
        group: Weights that are compared with each other: each output ``row`` or the whole
            ``matrix``. ``magnitude`` always compares the matrix, ``sparsegpt`` a block of columns.
        ridge: Of ``sparsegpt`` and ``admm``, as in `ecoflap.prune`.

    Returns:
        The pruned weight [n_out, n_in] in the dtype of ``weight``, and the mask [n_out, n_in],
        True where a weight went: ``round(sparsity n_in)`` per row, ``round(sparsity n)`` per
        matrix, or M - N of each M, whatever the ties.

    Raises:
        PruningError: for shapes that do not fit, values that are not finite, a sparsity outside
            [0, 1], an unknown group, a pattern that sparsity or columns do not fit, or a ridge that
            is no number above 0 or that the criterion does not take.
        ConfigError: for an unknown criterion.
    """
    module, ridge = CRITERIA.get(criterion), checked_ridge(ridge, criterion)
    if weight.ndim != 2 or not weight.is_floating_point():
        raise PruningError(
            f"a weight of shape {tuple(weight.shape)} and type {weight.dtype}",
            allowed="a matrix [n_out, n_in] of floating-point numbers",
            fix="Prune one matrix at a time.",
        )
    if inputs is not None and (inputs.ndim != 2 or inputs.shape[1] != weight.shape[1]):
        raise PruningError(
            f"inputs of shape {tuple(inputs.shape)} for a weight {tuple(weight.shape)}",
            allowed=f"[n_tokens, {weight.shape[1]}]",
            fix="Flatten batch and sequence into n_tokens.",
        )
    statistics = None if inputs is None else module.statistics(inputs)
    selection = Selection.of_pattern(sparsity, group, pattern, weight.shape[1])
    return apply(module, weight, statistics, selection, ridge)


def checked_ridge(ridge: str | float | None, criterion: str) -> float | None:
    """Returns a ridge as a number.

    Raises:
        PruningError: if it is no number above 0, or the criterion takes none.
    """
    if ridge is None:
        return None
    if criterion not in RIDGED:
        said, allowed = f"a ridge with {criterion}", f"a ridge with {' or '.join(RIDGED)}"
        raise PruningError(said, allowed=allowed, fix="Leave the ridge out.")
    try:
        number = float(ridge)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        said = f"a ridge of {ridge!r}"
        raise PruningError(said, allowed="a number above 0", fix="Give 0.1, or leave it out.")
    return number


def apply(
    module,
    weight: torch.Tensor,
    statistics: torch.Tensor | None,
    selection: Selection,
    ridge: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Checks the arguments, then runs a criterion on statistics summed over batches.

    Args:
        module: A criterion's module.
        weight: [n_out, n_in].
        statistics: The sum of the criterion's ``statistics`` over all batches.
        selection: How many weights go, compared among which.
        ridge: Of a criterion that takes one, instead of its own.

    Raises:
        PruningError: if statistics are missing, or a number is not finite: of the weights, the
            statistics, or the updated weights in the dtype of ``weight``.
    """
    name = module.__name__.rpartition(".")[2]
    if statistics is None and module.NEEDS_INPUTS:
        raise PruningError(
            f"{name} got no activations",
            allowed="inputs [n_tokens, n_in]",
            fix="Pass batches.",
        )
    for what, tensor in (("weights", weight), ("activation statistics", statistics)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise PruningError(
                f"{what} of {name} are not finite",
                allowed="finite numbers",
                fix="Try float32.",
            )
    if selection.sparsity == 0:
        return weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    given = {} if ridge is None else {"ridge": ridge}
    pruned, mask = module.prune(weight, statistics, selection, **given)
    if not torch.isfinite(pruned).all():
        raise PruningError(
            f"weights that {name} updated are not finite in "
            + str(pruned.dtype).removeprefix("torch."),
            allowed="finite numbers",
            fix="Load the model as float32 or bfloat16, or use more calibration samples.",
        )
    return pruned, mask
