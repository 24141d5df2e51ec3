"""Seconds and memory on a GPU, BLIP-2 ViT-g FlanT5-XL at its real size with random weights."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch

import ecoflap
from bench import literal, models
from ecoflap.models.model import Model
from ecoflap.scores import matrix_table
from ecoflap_pipeline.code import SCRIPTS
from ecoflap_pipeline.report import published

log = logging.getLogger(__name__)
SPARSITY = "0.5"
PUBLISHED = SCRIPTS.parent / "resources" / "published" / "cost-blip2.csv"
# The published rows of the scores include the Wanda pass that follows.
PUBLISHED_ROWS = {
    "literal zeroth": "ecoflap-zeroth-32-samples",
    "first, all gradients at once": "ecoflap-first",
    "wanda": "wanda",
    "sparsegpt": "sparsegpt",
}
NOTES = (
    "Peak: the allocator's, weights included (on a CPU: weights and growth of the resident set).",
    "To the Wanda pass: seconds and peak divided by those of the Wanda pass of this run. Goals: "
    "gradnorm under 1 in seconds and at most 1.1 in peak.",
    "With Wanda: a score's seconds and those of the Wanda pass that follows, which is what the "
    "published seconds of a score count. The published runs used one A100 or A6000 and the first "
    "score on 128 samples, one by one.",
)


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        size: The model.
        dtype: Its dtype.
        scored: Samples of stage 1.
        pruned: Samples of stage 2.
        batch_size: Of both.
        matrices: Matrices that both ways of `zeroth` score, at least, on one batch.
    """

    size: models.Blip2Size
    dtype: torch.dtype
    scored: int
    pruned: int
    batch_size: int
    matrices: int

    def note(self) -> str:
        """Says what was measured."""
        widths = f"{self.size.vision['hidden_size']} and {self.size.text['d_model']} wide"
        return (
            f"BLIP-2, towers {widths}, random weights, {str(self.dtype)[6:]}. Scores: "
            f"{self.scored} samples; passes: {self.pruned} samples; batches of {self.batch_size}."
        )


REAL = Scale(models.REAL, torch.bfloat16, scored=32, pruned=128, batch_size=8, matrices=98)
SMALL = Scale(models.TINY, torch.bfloat16, scored=4, pruned=4, batch_size=2, matrices=4)


def run(device: str, *, small: bool = False) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measures everything.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        small: Measures a tiny model, to try the code.

    Returns:
        A row per method, and notes.
    """
    scale = SMALL if small else REAL
    log.info("making the model on %s", device)
    model = models.build_blip2(scale.size, scale.dtype, device)
    samples = models.image_captions(scale.size, max(scale.scored, scale.pruned))
    batches = [model.to_device(b) for b in models.collate(samples, scale.batch_size)]
    stage1 = batches[: scale.scored // scale.batch_size]
    stage2 = batches[: scale.pruned // scale.batch_size]
    with torch.no_grad():
        model.loss(batches[0])  # the first forward loads kernels
    rows = [*_zeroth(model, stage1, scale.matrices)]
    rows.append(_gradnorm(model, stage1))
    rows.append(_first(model, stage1))
    rows += [_pass(model, stage2, criterion) for criterion in ("wanda", "sparsegpt")]
    frame = _to_wanda(pd.DataFrame(rows))
    if not small and PUBLISHED.exists():
        frame = _beside_published(frame)
    last = frame.pop("measured")
    return frame.assign(measured=last), (scale.note(), *NOTES)


def _measure(
    model: Model, what: str, function: Callable[[], object], *, times: float = 1, how: str = "all"
) -> dict:
    """Runs a function; its seconds are multiplied by ``times`` where it did a part of the work."""
    with model.cost() as cost:
        function()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    seconds, peak = cost.seconds * times, cost.peak_memory_mb / 1024
    log.info("%s: %.1f s (%.1f s measured), peak %.2f GiB", what, seconds, cost.seconds, peak)
    return {"what": what, "seconds": seconds, "peak_gib": peak, "measured": how}


def _zeroth(model: Model, batches: list[dict], count: int) -> list[dict]:
    weights = models.spread(model, count)
    total = sum(1 for _ in model.matrices())
    part = {
        "times": len(batches) * total / len(weights),
        "how": f"{len(weights)} of {total} matrices on 1 of {len(batches)} batches, scaled",
    }

    def plain() -> None:
        literal.zeroth(model.loss, weights, batches[:1])

    def cached() -> None:
        with models.only(model, list(weights)):
            ecoflap.score(model, batches[:1], estimator="zeroth")

    return [
        _measure(model, "literal zeroth", plain, **part),
        _measure(model, "zeroth", cached, **part),
    ]


def _gradnorm(model: Model, batches: list[dict]) -> dict:
    return _measure(model, "gradnorm", lambda: ecoflap.score(model, batches, estimator="gradnorm"))


def _first(model: Model, batches: list[dict]) -> dict:
    weights = {matrix.name: matrix.module.weight for matrix in model.matrices()}
    model.module.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    row = _measure(
        model,
        "first, all gradients at once",
        lambda: literal.first(model.loss, weights, batches),
    )
    model.module.requires_grad_(False)
    return row


def _pass(model: Model, batches: list[dict], criterion: str) -> dict:
    models.randomize(model.module)  # dense again after an earlier pass
    plan = ecoflap.allocate(matrix_table(model), sparsity=SPARSITY, method="uniform")
    return _measure(
        model, criterion, lambda: ecoflap.prune(model, batches, plan, criterion=criterion)
    )


def _to_wanda(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds each method's cost in units of the Wanda pass, and that of a score with the pass."""
    wanda = frame.set_index("what").loc["wanda"]
    is_score = ~frame["what"].isin(["wanda", "sparsegpt"])
    return frame.assign(
        seconds_to_wanda=frame["seconds"] / wanda["seconds"],
        peak_to_wanda=frame["peak_gib"] / wanda["peak_gib"],
        with_wanda_seconds=(frame["seconds"] + wanda["seconds"]).where(is_score),
    )


def _beside_published(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the published cost of the methods that have one."""
    costs = pd.DataFrame(published.read(PUBLISHED, {"sparsity": SPARSITY})).set_index("method")
    costs = costs[["seconds", "memory_gb"]].astype(float)
    rows = frame["what"].map(PUBLISHED_ROWS)
    return frame.assign(
        published_seconds=rows.map(costs["seconds"]),
        published_gb=rows.map(costs["memory_gb"]),
    )
