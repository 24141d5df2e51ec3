"""The fine step: layer-wise pruning, block after block, on the activations of pruned blocks."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ecoflap import criteria
from ecoflap.criteria._selection import UNSTRUCTURED, Selection
from ecoflap.engine.counted import ALL
from ecoflap.engine.walk import Walk
from ecoflap.errors import PruningError
from ecoflap.masks import pack_mask, unpack_mask
from ecoflap.models.model import Matrix, Model
from ecoflap.plugins import CRITERIA

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
    "tokens_per_feature",
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
    tokens: str = ALL,
    ridge: str | float | None = None,
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
        tokens: What counts in the statistics of the language tower, where images stand among the
            tokens of a text: ``all``, ``text`` (no image tokens), or ``drift`` (the image tokens
            that a block changes most, for one more run of each block; `ecoflap.engine.counted`).
        ridge: What ``sparsegpt`` and ``admm`` add to the diagonal of X^T X, as a part of each
            feature's own entry; by default ``sparsegpt`` adds 0.01 of the mean entry, as published,
            and ``admm`` 0.1 of each.

    Returns:
        One row per matrix: planned and achieved sparsity, calibration tokens (without padding) per
        input feature, relative error of the block's output on the first batch (both NaN without
        batches), seconds of its block.

    Raises:
        PruningError: if the plan does not fit the model or a number is not finite.
    """
    module, ridge = CRITERIA.get(criterion), criteria.checked_ridge(ridge, criterion)
    selections = _selections(model, plan, group, pattern)
    batches = model.ready(batches) if module.NEEDS_INPUTS else []
    rows: list[tuple] = []
    walk = Walk(model, batches, module, tokens)
    for block in tqdm(walk, desc=criterion, unit="block", disable=None):
        start = time.perf_counter()
        statistics = walk.statistics(block)
        done: list[tuple[Matrix, float, float, float]] = []
        for matrix in block.matrices:
            selection, known = selections[matrix.name], statistics.get(matrix.name)
            achieved = _prune_one(model, matrix, module, known, selection, ridge)
            per_feature = walk.counts.get(matrix.name, math.nan) / matrix.module.weight.shape[1]
            done.append((matrix, selection.sparsity, achieved, per_feature))
        model.keep_changes(block)
        error = walk.advance(block)
        seconds = time.perf_counter() - start
        rows += [report_row(model, *item, error, seconds) for item in done]
        if done:
            removed = sum(m.n_weights * achieved for m, _, achieved, _ in done)
            log.info(
                "block %s: sparsity %.4f, output error %.4f, %.2f s",
                block.name,
                removed / sum(m.n_weights for m, *_ in done),
                error,
                seconds,
            )
    if len(rows) != len(plan):
        missing = sorted(set(selections) - {row[2] for row in rows})
        raise PruningError(
            f"the model never runs {missing[0]} on these batches ({len(missing)} in all)",
            allowed="batches that reach every block",
            fix="Pass batches with all inputs of the model.",
        )
    told = {"criterion": criterion, "pattern": pattern}
    told |= {"tokens": tokens} if tokens != ALL else {}
    told |= {"ridge": ridge} if ridge is not None else {}
    model.history.append(("pruning", told))
    report = report_table(rows)
    if module.UPDATES_WEIGHTS:
        _warn_of_few_tokens(report, criterion)
    if module.NEEDS_INPUTS:
        model.tokens_per_feature = dict(
            zip(report["name"], report["tokens_per_feature"], strict=True)
        )
    return report


def _warn_of_few_tokens(report: "pd.DataFrame", criterion: str) -> None:
    """Says which matrices have a singular X^T X, where updated weights fit noise."""
    few = report[report["tokens_per_feature"] < 1].sort_values("tokens_per_feature")
    if len(few):
        log.warning(
            "%d of %d matrices have fewer calibration tokens than input features (least: %.2f per "
            "feature, %s): what %s updates there fits noise. Use more samples or a larger ridge.",
            len(few),
            len(report),
            few["tokens_per_feature"].iloc[0],
            few["name"].iloc[0],
            criterion,
        )


def _planned(model: Model, plan: "pd.DataFrame") -> dict[str, float]:
    table = hasattr(plan, "columns")
    absent = [column for column in PLAN_COLUMNS if not table or column not in plan]
    if absent:
        raise PruningError(
            f"a plan without the column '{absent[0]}'",
            allowed="the table that ecoflap.allocate returns",
            fix="Run ecoflap.allocate on the scores.",
        )
    planned = dict(zip(plan["name"], plan["sparsity"], strict=True))
    sizes = dict(zip(plan["name"], plan.get("n_weights", []), strict=False))
    names = {matrix.name for matrix in model.matrices()}
    other = next(
        (m for m in model.matrices() if sizes.get(m.name, m.n_weights) != m.n_weights), None
    )
    if other is not None:
        raise PruningError(
            f"the plan is of another model: {other.name} has {sizes[other.name]} weights in it",
            allowed=f"{other.n_weights}, as in this model",
            fix="Make the plan from scores of the same model.",
        )
    if names != set(planned) or len(plan) != len(planned):
        odd = sorted(names.symmetric_difference(planned), key=str) or [
            "a matrix that is named twice"
        ]
        raise PruningError(
            f"the plan does not fit the model: {odd[0]} ({len(odd)} in all)",
            allowed="one row for each prunable matrix of this model",
            fix="Make the plan from scores of the same model.",
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
    ridge: float | None,
) -> float:
    """Prunes a matrix in place, keeps its mask, returns the achieved sparsity.

    What an earlier pass removed stays removed, and counts.
    """
    weight = matrix.module.weight
    try:
        new, mask = criteria.apply(criterion, weight.detach(), statistics, selection, ridge)
    except PruningError as error:
        raise PruningError(f"{matrix.name}: {error}") from error
    earlier = model.masks.get(matrix.name)
    if earlier is not None:
        mask = mask | unpack_mask(earlier, tuple(mask.shape)).to(mask.device)
        new = new.masked_fill(mask, 0)
    with torch.no_grad():
        weight.copy_(new)
    model.masks[matrix.name] = pack_mask(mask)
    return mask.sum().item() / matrix.n_weights


def report_row(
    model: Model,
    matrix: Matrix,
    target: float,
    achieved: float,
    tokens: float,
    error: float,
    seconds: float,
) -> tuple:
    """Returns the row of `report_table` for one matrix."""
    place = (matrix.tower, model.blocks[matrix.block].name, matrix.name, matrix.n_weights)
    return (*place, target, achieved, tokens, error, seconds)


def report_table(rows: list[tuple]) -> "pd.DataFrame":
    """Returns the table that `prune` returns."""
    import pandas as pd

    return pd.DataFrame(rows, columns=REPORT_COLUMNS)
