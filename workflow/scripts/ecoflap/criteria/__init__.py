"""Which weights of one matrix go. Stateless: weight and activations in, weight and mask out.

A criterion is a module with

* ``UPDATES_WEIGHTS``: whether the weights that stay change too,
* ``NEEDS_INPUTS``: whether it cannot do without activations,
* ``statistics(inputs)``: what it needs of the activations, a tensor that adds up over
  batches, or ``None`` if it looks at the weights alone,
* ``prune(weight, statistics, selection)``: the pruned weight and the mask.
"""

import torch

from ecoflap.criteria.selection import UNSTRUCTURED, Selection
from ecoflap.errors import PruningError, message
from ecoflap.registry import CRITERIA


def prune_matrix(
    weight: torch.Tensor,
    inputs: torch.Tensor | None,
    *,
    sparsity: float,
    criterion: str,
    pattern: str = UNSTRUCTURED,
    group: str = "row",
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

    Returns:
        The pruned weight [n_out, n_in] in the dtype of ``weight``, and the mask [n_out, n_in],
        True where a weight went: ``round(sparsity n_in)`` per row, ``round(sparsity n)`` per
        matrix, or M - N of each M, whatever the ties.

    Raises:
        PruningError: for shapes that do not fit, values that are not finite, a sparsity outside
            [0, 1], an unknown group, or a pattern that sparsity or columns do not fit.
        ConfigError: for an unknown criterion.
    """
    module = CRITERIA.get(criterion)
    if weight.ndim != 2 or not weight.is_floating_point():
        raise PruningError(
            message(
                f"a weight of shape {tuple(weight.shape)} and type {weight.dtype}",
                "a matrix [n_out, n_in] of floating-point numbers",
                "Prune one matrix at a time.",
            )
        )
    if inputs is not None and (inputs.ndim != 2 or inputs.shape[1] != weight.shape[1]):
        raise PruningError(
            message(
                f"inputs of shape {tuple(inputs.shape)} for a weight {tuple(weight.shape)}",
                f"[n_tokens, {weight.shape[1]}]",
                "Flatten batch and sequence into n_tokens.",
            )
        )
    statistics = None if inputs is None else module.statistics(inputs)
    selection = Selection.of_pattern(sparsity, group, pattern, weight.shape[1])
    return apply(module, weight, statistics, selection)


def apply(
    module, weight: torch.Tensor, statistics: torch.Tensor | None, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor]:
    """Checks the arguments, then runs a criterion on statistics summed over batches.

    Args:
        module: A criterion's module.
        weight: [n_out, n_in].
        statistics: The sum of the criterion's ``statistics`` over all batches.
        selection: How many weights go, compared among which.

    Raises:
        PruningError: if statistics are missing, or a number is not finite: of the weights, the
            statistics, or the updated weights in the dtype of ``weight``.
    """
    name = module.__name__.rpartition(".")[2]
    if statistics is None and module.NEEDS_INPUTS:
        raise PruningError(
            message(f"{name} got no activations", "inputs [n_tokens, n_in]", "Pass batches.")
        )
    for what, tensor in (("weights", weight), ("activation statistics", statistics)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise PruningError(
                message(f"{what} of {name} are not finite", "finite numbers", "Try float32.")
            )
    if selection.sparsity == 0:
        return weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    pruned, mask = module.prune(weight, statistics, selection)
    if not torch.isfinite(pruned).all():
        raise PruningError(
            message(
                f"weights that {name} updated are not finite in "
                + str(pruned.dtype).removeprefix("torch."),
                "finite numbers",
                "Load the model as float32 or bfloat16, or use more calibration samples.",
            )
        )
    return pruned, mask
