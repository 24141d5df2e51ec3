"""The fine step: layer-wise pruning, block after block, on the activations of pruned blocks."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from ecoflap import artifacts, criteria, models
from ecoflap.criteria.selection import UNSTRUCTURED, Selection
from ecoflap.errors import ArtifactError, PruningError, message
from ecoflap.models.base import Matrix, Model
from ecoflap.models.casting import cast
from ecoflap.registry import CRITERIA
from ecoflap.walk import Walk

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
PLAN_COLUMNS = ("name", "sparsity")
REPORT_COLUMNS = [
    "tower",
    "block",
    "name",
    "n_weights",
    "sparsity",
    "achieved_sparsity",
    "block_error",
    "seconds",
]


def prune(
    model: Model,
    batches: Iterable[Mapping[str, torch.Tensor]],
    plan: "pd.DataFrame",
    *,
    criterion: str = "wanda",
    group: str | None = None,
    pattern: str = UNSTRUCTURED,
    offload: str | None = None,
) -> "pd.DataFrame":
    """Prunes a model in place.

    Blocks are pruned in the order in which the model runs them. The statistics of a block come
    from the outputs of the already pruned blocks before it, and each block is called by the
    model's own code with the arguments that it computes.

    Args:
        model: What `ecoflap.load` returned; its ``masks`` are filled.
        batches: Calibration batches; may be empty for ``magnitude``.
        plan: What `ecoflap.allocate` returned: columns name and sparsity; n_weights is compared
            with the model's if it is there.
        criterion: ``magnitude``, ``wanda``, ``ria``, ``sparsegpt`` or ``admm``.
        group: What Wanda and RIA compare, ``row`` or ``matrix``; the model's published choice if
            None.
        pattern: ``unstructured``, ``N:M`` or ``n:M``, as in `ecoflap.criteria.prune_matrix`.
        offload: Where weights and activations wait; decided by `ecoflap.load`, named here only to
            be sure of it.

    Returns:
        One row per matrix: planned and achieved sparsity, relative error of the block's output on
        the first batch (NaN without batches), seconds of its block.

    Raises:
        PruningError: if the plan does not fit the model or a number is not finite.
    """
    if offload not in (None, model.offload):
        raise PruningError(
            message(
                f"offload='{offload}' with a model loaded with offload='{model.offload}'",
                "what the model was loaded with",
                f"Load the model with offload='{offload}'.",
            )
        )
    module = CRITERIA.get(criterion)
    selections = _selections(model, plan, group, pattern)
    batches = model.ready(batches) if module.NEEDS_INPUTS else []
    rows: list[tuple] = []
    walk = Walk(model, batches, module)
    for block in tqdm(walk, desc=criterion, unit="block", disable=None):
        start = time.perf_counter()
        statistics = walk.statistics(block)
        done = []
        for matrix in block.matrices:
            selection = selections[matrix.name]
            achieved = _prune_one(model, matrix, module, statistics.get(matrix.name), selection)
            done.append((matrix, selection.sparsity, achieved))
        model.keep_changes(block)
        error = walk.advance(block)
        seconds = time.perf_counter() - start
        rows += [report_row(model, *item, error, seconds) for item in done]
        if done:
            removed = sum(m.n_weights * achieved for m, _, achieved in done)
            log.info(
                "block %s: sparsity %.4f, output error %.4f, %.2f s",
                block.name,
                removed / sum(m.n_weights for m, _, _ in done),
                error,
                seconds,
            )
    if len(rows) != len(plan):
        missing = sorted(set(selections) - {row[2] for row in rows})
        raise PruningError(
            message(
                f"the model never runs {missing[0]} on these batches ({len(missing)} in all)",
                "batches that reach every block",
                "Pass batches with all inputs of the model.",
            )
        )
    model.history.append(("pruning", {"criterion": criterion, "pattern": pattern}))
    return report_table(rows)


def _planned(model: Model, plan: "pd.DataFrame") -> dict[str, float]:
    table = hasattr(plan, "columns")
    absent = [column for column in PLAN_COLUMNS if not table or column not in plan]
    if absent:
        raise PruningError(
            message(
                f"a plan without the column '{absent[0]}'",
                "the table that ecoflap.allocate returns",
                "Run ecoflap.allocate on the scores.",
            )
        )
    planned = dict(zip(plan["name"], plan["sparsity"], strict=True))
    sizes = dict(zip(plan["name"], plan.get("n_weights", []), strict=False))
    names = {matrix.name for matrix in model.matrices()}
    other = next(
        (m for m in model.matrices() if sizes.get(m.name, m.n_weights) != m.n_weights), None
    )
    if other is not None:
        raise PruningError(
            message(
                f"the plan is of another model: {other.name} has {sizes[other.name]} weights in it",
                f"{other.n_weights}, as in this model",
                "Make the plan from scores of the same model.",
            )
        )
    if names != set(planned) or len(plan) != len(planned):
        odd = sorted(names.symmetric_difference(planned), key=str) or [
            "a matrix that is named twice"
        ]
        raise PruningError(
            message(
                f"the plan does not fit the model: {odd[0]} ({len(odd)} in all)",
                "one row for each prunable matrix of this model",
                "Make the plan from scores of the same model.",
            )
        )
    return planned


def _selections(
    model: Model, plan: "pd.DataFrame", group: str | None, pattern: str
) -> dict[str, Selection]:
    """Returns what goes of each matrix, so that a plan which cannot be is told at once."""
    matrices = {matrix.name: matrix for matrix in model.matrices()}
    selections = {}
    for name, sparsity in _planned(model, plan).items():
        matrix = matrices[name]
        try:
            selections[name] = Selection.of_pattern(
                sparsity,
                group or model.group_of(matrix.tower),
                pattern,
                n_in=matrix.module.weight.shape[1],
            )
        except PruningError as error:
            raise PruningError(f"{name}: {error}") from error
    return selections


def _prune_one(
    model: Model,
    matrix: Matrix,
    criterion,
    statistics: torch.Tensor | None,
    selection: Selection,
) -> float:
    """Prunes a matrix in place, keeps its mask, returns the achieved sparsity.

    What an earlier pass removed stays removed, and counts.
    """
    weight = matrix.module.weight
    try:
        new, mask = criteria.apply(criterion, weight.detach(), statistics, selection)
    except PruningError as error:
        raise PruningError(f"{matrix.name}: {error}") from error
    earlier = model.masks.get(matrix.name)
    if earlier is not None:
        mask = mask | artifacts.unpack_mask(earlier, tuple(mask.shape)).to(mask.device)
        new = new.masked_fill(mask, 0)
    with torch.no_grad():
        weight.copy_(new)
    model.masks[matrix.name] = artifacts.pack_mask(mask)
    return mask.sum().item() / matrix.n_weights


def report_row(
    model: Model, matrix: Matrix, target: float, achieved: float, error: float, seconds: float
) -> tuple:
    """Returns the row of `report_table` for one matrix."""
    name = model.blocks[matrix.block].name
    return (matrix.tower, name, matrix.name, matrix.n_weights, target, achieved, error, seconds)


def report_table(rows: list[tuple]) -> "pd.DataFrame":
    """Returns the table that `prune` returns."""
    import pandas as pd

    return pd.DataFrame(rows, columns=REPORT_COLUMNS)


STATE = "state."  # begins the names of stored weights that are no prunable matrices


def save_changes(
    model: Model,
    path: str | Path,
    head: Mapping,
    *,
    updates_weights: bool,
    further: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Stores what pruning changed: packed masks, or whole tensors if weights were updated.

    Args:
        model: A pruned model.
        path: The safetensors file to write.
        head: Provenance header; must hold ``dense``, the hash of the dense checkpoint.
        updates_weights: Whether weights that stayed have new values.
        further: Other changed weights by their names in the model, biases for example.
    """
    if updates_weights:
        changes = {m.name: m.module.weight.detach().cpu() for m in model.resident_matrices()}
    else:
        changes = {f"{name}.mask": packed for name, packed in model.masks.items()}
    changes |= {STATE + name: tensor.detach().cpu() for name, tensor in (further or {}).items()}
    artifacts.write_tensors(path, changes, head)


def load_changed(
    folder: str | Path,
    changes: str | Path | None,
    *,
    device: str,
    donor: str | Path | None = None,
    check: Callable[[Model], None] = lambda dense: None,
    **loading: Any,
) -> Model:
    """Loads a dense checkpoint whose files are checked, and applies what pruning changed.

    Args:
        folder: The dense checkpoint with its manifest.
        changes: What `save_changes` stored; None for the dense model.
        device: As in `ecoflap.load`, like all in ``loading``.
        donor: The checkpoint that was pruned, if it is another one: its vision tower counts.
        check: Called with the dense model; may refuse it.
        loading: Further arguments of `ecoflap.load`.

    Raises:
        ArtifactError: if a file has changed, or the changes belong to another checkpoint.
    """
    model = models.load(artifacts.checked(folder), device=device, **loading)
    check(model)
    if changes:
        dense = artifacts.file_hash(donor or folder)
        apply_changes(model, changes, dense, towers=["vision"] if donor else None)
    return model


def apply_changes(
    model: Model, path: str | Path, dense: str, *, towers: Collection[str] | None = None
) -> None:
    """Applies what `save_changes` stored to a freshly loaded dense model.

    Args:
        model: The dense model.
        path: The stored changes.
        dense: Hash of the manifest of the dense checkpoint that was pruned.
        towers: Apply those of these towers only; all by default.

    Raises:
        ArtifactError: if the changes belong to another checkpoint or do not fit.
        ModelError: if a changed weight is not finite in the number format of the model.
    """
    changes, head = artifacts.read_tensors(path, "pruned")
    if head["dense"] != dense:
        raise ArtifactError(
            message(
                f"{path} was made from another checkpoint ({head['dense'][:12]})",
                f"changes of the checkpoint {dense[:12]}",
                "Prune this model again.",
            )
        )
    for matrix in model.matrices():
        if towers is not None and matrix.tower not in towers:
            continue
        weight = matrix.module.weight
        with torch.no_grad():
            if f"{matrix.name}.mask" in changes:
                packed = changes.pop(f"{matrix.name}.mask")
                mask = artifacts.unpack_mask(packed, tuple(weight.shape))
                weight.masked_fill_(mask.to(weight.device), 0)
                model.masks[matrix.name] = packed
            elif matrix.name in changes and changes[matrix.name].shape == weight.shape:
                weight.copy_(cast(matrix.name, changes.pop(matrix.name), weight.dtype))
                model.masks[matrix.name] = artifacts.pack_mask(weight == 0)
            else:
                raise ArtifactError(
                    message(
                        f"{path} has nothing that fits {matrix.name}",
                        "a mask or a tensor for every prunable matrix",
                        "Prune this model again.",
                    )
                )
    state = model.module.state_dict()
    for name, tensor in changes.items() if towers is None else ():
        own = state.get(name.removeprefix(STATE))
        if own is None or own.shape != tensor.shape:
            raise ArtifactError(
                message(
                    f"{path} has a weight {name} that fits none of the model",
                    "the names and shapes of the model",
                    "Prune this model again.",
                )
            )
        own.copy_(cast(name, tensor, own.dtype))
