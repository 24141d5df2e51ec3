"""Which weights of one matrix go. Stateless: weight and activations in, weight and mask out.

A criterion is a module with

* ``UPDATES_WEIGHTS``: whether the weights that stay change too,
* ``NEEDS_INPUTS``: whether it cannot do without activations,
* ``statistics(inputs)``: what it needs of the activations, a tensor that adds up over
  batches, or ``None`` if it looks at the weights alone,
* ``prune(weight, statistics, sparsity, group)``: the pruned weight and the mask.
"""

import torch

from ecoflap.errors import PruningError, message
from ecoflap.registry import CRITERIA, unknown

GROUPS = ("row", "matrix")


def prune_matrix(
    weight: torch.Tensor,
    inputs: torch.Tensor | None,
    *,
    sparsity: float,
    criterion: str,
    group: str = "row",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prunes one matrix.

    Args:
        weight: [n_out, n_in], not changed.
        inputs: Activations [n_tokens, n_in]; may be None for ``magnitude``.
        sparsity: Fraction of the weights to remove, in [0, 1].
        criterion: ``magnitude``, ``wanda`` or ``sparsegpt``.
        group: Weights that are compared with each other: each output ``row`` or the whole
            ``matrix``. ``magnitude`` always compares the matrix, ``sparsegpt`` a block of columns.

    Returns:
        The pruned weight [n_out, n_in] in the dtype of ``weight``, and the mask [n_out, n_in],
        True where a weight went: ``round(sparsity n_in)`` per row or ``round(sparsity n)`` per
        matrix, whatever the ties.

    Raises:
        PruningError: for shapes that do not fit, values that are not finite, a sparsity outside
            [0, 1] or an unknown group.
        ConfigError: for an unknown criterion.
    """
    module = CRITERIA.get(criterion)
    if inputs is not None and (inputs.ndim != 2 or inputs.shape[1] != weight.shape[1]):
        raise PruningError(
            message(
                f"inputs of shape {tuple(inputs.shape)} for a weight {tuple(weight.shape)}",
                f"[n_tokens, {weight.shape[1]}]",
                "Flatten batch and sequence into n_tokens.",
            )
        )
    statistics = None if inputs is None else module.statistics(inputs)
    return apply(module, weight, statistics, sparsity=sparsity, group=group)


def apply(
    module, weight: torch.Tensor, statistics: torch.Tensor | None, *, sparsity: float, group: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Checks the arguments, then runs a criterion on statistics summed over batches.

    Args:
        module: A criterion's module.
        weight: [n_out, n_in].
        statistics: The sum of the criterion's ``statistics`` over all batches.
        sparsity: Fraction to remove, in [0, 1].
        group: ``row`` or ``matrix``.
    """
    name = module.__name__.rpartition(".")[2]
    if group not in GROUPS:
        raise PruningError(unknown("group", group, GROUPS))
    if not 0 <= sparsity <= 1:
        raise PruningError(
            message(f"sparsity {sparsity}", "0 to 1, the fraction removed", "Correct the plan.")
        )
    if statistics is None and module.NEEDS_INPUTS:
        raise PruningError(
            message(f"{name} got no activations", "inputs [n_tokens, n_in]", "Pass batches.")
        )
    for what, tensor in (("weights", weight), ("activation statistics", statistics)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise PruningError(
                message(f"{what} of {name} are not finite", "finite numbers", "Try float32.")
            )
    if sparsity == 0:
        return weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    return module.prune(weight, statistics, sparsity, group)
