"""Speed on a CPU: the library beside the literal algorithms, on a BLIP-2-shaped model."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

import ecoflap
from bench import literal, models
from ecoflap.criteria import prune_matrix
from ecoflap.models.model import Model
from ecoflap.scores import matrix_table

log = logging.getLogger(__name__)
SPARSITY = 0.5
UNKNOWN = (float("nan"), float("nan"))
COLUMNS = [
    "what",
    "library_seconds",
    "other_seconds",
    "times_faster",
    "goal",
    "deviation",
    "allowed",
    "measured",
]
NOTES = (
    "BLIP-2-shaped: 39 vision, 24 encoder and 24 decoder blocks, 588 prunable matrices, a "
    "Q-Former, 257 image tokens, widths divided by 11, random weights in float32; 32 samples in "
    "batches of 8.",
    "Deviation, scores: largest relative difference over the matrices compared. Wanda: share of "
    "the mask's bits that differ after the whole pass. SparseGPT: share of the weights that differ "
    "by more than 1e-4 of the standard deviation of their matrix.",
    "SparseGPT's weights are compared matrix by matrix, from the same Hessian (up to a power of "
    "two). In the pass the two sum it in another order (batches of 8, samples one by one), and its "
    "condition number, 10,000 here, magnifies that rounding beyond 1e-4, in the weights and in "
    "what the later blocks see.",
)


@dataclass(frozen=True)
class Data:
    """A model with its calibration data.

    Attributes:
        model: What is scored and pruned.
        samples: Batches of one.
        batches: The same in batches.
    """

    model: Model
    samples: list[dict[str, torch.Tensor]]
    batches: list[dict[str, torch.Tensor]]


def data(size: models.Blip2Size, samples: int, batch_size: int) -> Data:
    """Makes a random model and random samples."""
    rows = models.image_captions(size, samples)
    return Data(models.build_blip2(size), rows, models.collate(rows, batch_size))


def run() -> pd.DataFrame:
    """Measures everything; one row per figure."""
    reduced = data(models.REDUCED, samples=32, batch_size=8)
    rows = score_figures(reduced, matrices=60)
    rows.append(draws_figure(data(models.TINY, samples=4, batch_size=4), draws=2000))
    rows.append(pass_figure(reduced, "wanda", literal.Wanda, goal=2.0))
    rows.append(pass_figure(reduced, "sparsegpt", literal.SparseGPT, goal=1.0))
    rows.append(sparsegpt_figure(reduced, matrices=60))
    return pd.DataFrame(rows, columns=COLUMNS)


def timed(function: Callable, *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    """Returns what a function returns, and its seconds."""
    start = time.perf_counter()
    result = function(*arguments, **keywords)
    return result, time.perf_counter() - start


def score_figures(data: Data, matrices: int) -> list[dict]:
    """Compares `zeroth` and `gradnorm` with the literal `zeroth`.

    Args:
        data: The model and its data.
        matrices: How many matrices the literal algorithm scores, at least.
    """
    model, one = data.model, data.batches[:1]
    weights = models.spread(model, matrices)
    names, total = list(weights), sum(1 for _ in model.matrices())
    with torch.no_grad():
        model.loss(one[0])  # the first forward is slower

    def plain(part: list[str]) -> tuple[dict[str, float], float]:
        return timed(literal.zeroth, model.loss, {name: weights[name] for name in part}, one)

    # Half of the sample before and half after, so that a drift of the machine hits both alike.
    before, seconds_before = plain(names[::2])
    table, cached = timed(ecoflap.score, model, one, estimator="zeroth")
    _, gradnorm = timed(ecoflap.score, model, data.batches, estimator="gradnorm")
    after, seconds_after = plain(names[1::2])
    scores = dict(zip(table["name"], table["score"], strict=True))
    expected = before | after
    deviation = max(_relative(scores[name], expected[name]) for name in names)
    n_batches = len(data.batches)
    slow = (seconds_before + seconds_after) * n_batches * total / len(names)
    literal_part = f"literal: {len(names)} of {total} matrices on 1 of {n_batches} batches, scaled"
    zeroth = _row(
        "zeroth against literal zeroth",
        (cached * n_batches, slow),
        3.5,
        f"library: all matrices on 1 of {n_batches} batches, scaled; {literal_part}",
        (deviation, 1e-4),
    )
    return [
        zeroth,
        _row(
            "gradnorm against literal zeroth",
            (gradnorm, slow),
            200.0,
            f"library: all matrices and batches; {literal_part}",
        ),
    ]


def draws_figure(data: Data, draws: int) -> dict:
    """Compares `gradnorm` with the mean of many draws of `zeroth` on 5 matrices."""
    names = list(models.spread(data.model, 5))[:5]
    with models.only(data.model, names):
        closed, fast = timed(ecoflap.score, data.model, data.batches, estimator="gradnorm")
        drawn, slow = timed(
            ecoflap.score, data.model, data.batches, estimator="zeroth", draws=draws
        )
    pairs = zip(closed["score"], drawn["score"], strict=True)
    deviation = max(_relative(one, other) for one, other in pairs)
    how = f"{len(names)} matrices of a tiny BLIP-2, {len(data.batches)} batch; draws replayed"
    seconds = (fast, slow)
    what = f"gradnorm against {draws} draws of zeroth"
    return _row(what, seconds, float("nan"), how, (deviation, 0.05))


def pass_figure(data: Data, criterion: str, plain: type, goal: float) -> dict:
    """Compares the layer-wise pass with the literal one on the whole model.

    Args:
        data: The model, which is as it was afterwards, and its data.
        criterion: The library's name of the criterion.
        plain: The literal criterion.
        goal: How many times faster the library is meant to be.
    """
    model = data.model
    dense = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    plan = ecoflap.allocate(matrix_table(model), sparsity=str(SPARSITY), method="uniform")

    def library() -> None:
        ecoflap.prune(model, data.batches, plan, criterion=criterion)

    def other() -> None:
        towers = models.towers(model)
        literal.prune(towers, model.loss, data.samples, criterion=plain, sparsity=SPARSITY)

    seconds = {library: 0.0, other: 0.0}
    weights = {}
    for function in (library, other, other, library):
        model.module.load_state_dict(dense)
        _, taken = timed(function)
        seconds[function] += taken / 2
        weights[function] = {m.name: m.module.weight.detach().clone() for m in model.matrices()}
    model.module.load_state_dict(dense)
    same = criterion == "wanda"  # for the other see NOTES
    differ = (masks_differ(weights[library], weights[other]), 0.0) if same else UNKNOWN
    return _row(
        f"{criterion} pass against the literal pass",
        (seconds[library], seconds[other]),
        goal,
        f"whole model, {len(data.samples)} samples, twice each in the order a b b a",
        differ,
    )


@torch.no_grad()
def sparsegpt_figure(data: Data, matrices: int) -> dict:
    """Compares SparseGPT with the literal one, matrix by matrix, on the inputs of a dense model.

    Args:
        data: The model and its data.
        matrices: How many matrices are compared, at least.
    """
    chosen = models.spread(data.model, matrices)
    inputs = _inputs(data, list(chosen))
    seconds = [0.0, 0.0]
    ours, theirs = {}, {}
    for name, weight in chosen.items():
        # With 32 samples the literal code divides by 16, which rounds nothing.
        n = len(data.samples)
        tokens = inputs[name][: len(inputs[name]) // n * n]
        (ours[name], _), taken = timed(
            prune_matrix, weight, tokens, sparsity=SPARSITY, criterion="sparsegpt"
        )
        seconds[0] += taken
        copy = nn.Linear(*reversed(weight.shape), bias=False)
        copy.weight.copy_(weight)
        _, taken = timed(_literal_sparsegpt, copy, tokens.reshape(n, -1, tokens.shape[1]))
        seconds[1] += taken
        theirs[name] = copy.weight
    return _row(
        "sparsegpt against the literal one, matrix by matrix",
        seconds,
        float("nan"),
        f"{len(chosen)} matrices on the tokens of {len(data.samples)} samples",
        (weights_differ(ours, theirs), 0.0),
    )


def _literal_sparsegpt(linear: nn.Linear, inputs: torch.Tensor) -> None:
    pruner = literal.SparseGPT(linear, by_row=True)
    pruner.add(inputs)
    pruner.prune(SPARSITY)


def _keep(kept: list[torch.Tensor], _: nn.Module, args: tuple) -> None:
    kept.append(args[0].reshape(-1, args[0].shape[-1]))


def _inputs(data: Data, names: list[str]) -> dict[str, torch.Tensor]:
    """Returns the inputs of some matrices, [n_tokens, n_in], of all samples."""
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = [
        data.model.module.get_submodule(name).register_forward_pre_hook(partial(_keep, kept))
        for name, kept in inputs.items()
    ]
    for sample in data.samples:
        data.model.loss(sample)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in inputs.items()}


def masks_differ(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """Returns the share of the weights that one side removed and the other kept."""
    bad = sum(((ours[name] == 0) != (theirs[name] == 0)).sum().item() for name in ours)
    return bad / sum(weight.numel() for weight in ours.values())


def weights_differ(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], allowed: float = 1e-4
) -> float:
    """Returns the share of the weights that differ by more than a part of their deviation."""
    bad = 0
    for name, weight in ours.items():
        bad += ((weight - theirs[name]).abs() > allowed * theirs[name].std()).sum().item()
    return bad / sum(weight.numel() for weight in ours.values())


def _relative(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference) if reference else float(value != 0)


def _row(
    what: str,
    seconds: Sequence[float],
    goal: float,
    measured: str,
    deviation: tuple[float, float] = UNKNOWN,
) -> dict:
    ratio = seconds[1] / seconds[0]
    log.info("%s: %.2f s, %.2f s, ratio %.2f, deviation %.2e", what, *seconds, ratio, deviation[0])
    values = (what, *seconds, ratio, goal, *deviation, measured)
    return dict(zip(COLUMNS, values, strict=True))
