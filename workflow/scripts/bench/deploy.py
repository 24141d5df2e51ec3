"""Layers and blocks of BLIP-2's size, dense against the sparse tensors that torch has."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.benchmark import Timer

from bench import models
from ecoflap.criteria import prune_matrix
from ecoflap.export import semi_structured
from ecoflap.models.model import Model

log = logging.getLogger(__name__)
DENSE, SEMI_STRUCTURED = "dense", "2:4"
NOTES = (
    "Times dense: milliseconds of the dense module divided by those of this one, below 1 is "
    "slower. Median of repeated runs, the first left out. Inputs are what the module reads in a "
    "forward of the model on a batch of pictures and texts (257 image tokens, 36 to 44 tokens in "
    "the encoder, 4 to 12 in the decoder).",
    "2:4: torch's semi-structured tensors, on GPUs of compute capability 8.0 and above only. CSR: "
    "the linear layers' weights as torch.sparse_csr with so large a share of zeros. Zeros in a "
    "dense tensor change nothing, so that unstructured sparsity is as fast as dense without CSR.",
    "Weights: of the linear layers, as stored. Peak: of the allocator, GPU only. Deviation: "
    "largest difference to the same zeros in a dense tensor, divided by the largest output.",
)


@dataclass(frozen=True)
class Scale:
    """What is measured.

    Attributes:
        size: The model, two blocks a stack, of which the first is measured.
        dtype: Its dtype; torch's CSR product takes float32 alone on a CPU.
        batches: Samples at a time.
        zeros: Shares of zeros in CSR matrices.
        seconds: Shortest time over which a module is repeated.
    """

    size: models.Blip2Size
    dtype: torch.dtype
    batches: tuple[int, ...]
    zeros: tuple[float, ...] = (0.5, 0.7, 0.9)
    seconds: float = 0.2


def shallow(size: models.Blip2Size) -> models.Blip2Size:
    """Returns a model of the same widths with two blocks in each stack, the fewest of a list."""
    return replace(
        size,
        vision=size.vision | {"num_hidden_layers": 2},
        qformer=size.qformer | {"num_hidden_layers": 2},
        text=size.text | {"num_layers": 2},
    )


def scale(device: str, *, small: bool) -> Scale:
    """Returns what is measured on a device."""
    size = shallow(models.TINY if small else models.REAL)
    if small:
        return Scale(size, torch.float32, batches=(2,), zeros=(0.5,), seconds=0.001)
    if device == "cpu":
        return Scale(size, torch.float32, batches=(1, 4))
    return Scale(size, torch.bfloat16, batches=(1, 8, 32, 128))


def run(device: str, *, small: bool = False) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measures every layer and block.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        small: Measures a tiny model, to try the code.

    Returns:
        A row per module, batch size and form, and notes.
    """
    chosen = scale(device, small=small)
    model = models.build_blip2(chosen.size, chosen.dtype, device)
    model.module.requires_grad_(False)
    samples = models.image_captions(chosen.size, max(chosen.batches))
    rows = []
    with torch.inference_mode():
        for count in chosen.batches:
            (batch,) = models.collate(samples[:count], count)
            for call in calls(model, model.to_device(batch)):
                rows += _compare(call, count, chosen)
    note = f"Random weights, {str(chosen.dtype)[6:]}."
    return pd.DataFrame(rows), (note, *NOTES)


@dataclass(frozen=True)
class Call:
    """A module with the arguments that it had in a forward of the model."""

    what: str
    module: nn.Module
    args: tuple
    kwargs: dict

    def __call__(self) -> torch.Tensor:
        """Returns what the module puts out, the first part of it."""
        output = self.module(*self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


def calls(model: Model, batch: dict[str, torch.Tensor]) -> list[Call]:
    """Returns a block of each stack and a matrix of each shape, with what they read on a batch."""
    modules: dict[str, nn.Module] = {}
    for block in model.blocks:
        stack = block.name.rsplit(".", 2)[0]
        for matrix in block.matrices:
            n_out, n_in = matrix.module.weight.shape
            modules.setdefault(f"{stack}: {n_in} to {n_out}", matrix.module)
            modules.setdefault(f"{stack}: block", block.module)
    wanted = {module: what for what, module in modules.items()}
    found: list[Call] = []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        found.append(Call(wanted[module], module, args, kwargs))

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in wanted]
    try:
        model.loss(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _compare(call: Call, batch: int, chosen: Scale) -> Iterator[dict]:
    """Yields the dense module's row, then one for each form of its weights."""
    row = _measure(call, batch, DENSE, chosen, math.nan)
    dense = row["milliseconds"]
    yield row | {"times_dense": 1.0}
    forms: list[tuple[str, Callable, Callable]] = []
    if next(call.module.parameters()).device.type == "cuda":
        forms.append((SEMI_STRUCTURED, _two_four, semi_structured.convert))
    forms += [(f"CSR, {zeros:.0%} zeros", _without(zeros), _to_csr) for zeros in chosen.zeros]
    for form, prune, convert in forms:
        with _pruned(call.module, prune) as linears:
            expected = call()
            try:
                for name, linear in linears:
                    convert(name, linear)
                difference = (call() - expected).abs().max() / expected.abs().max()
                row = _measure(call, batch, form, chosen, difference.item())
            except (
                RuntimeError,
                semi_structured.DeployError,
            ) as error:  # a result, too
                log.warning("%s, batch %d, %s: %s", call.what, batch, form, error)
                row = {
                    "what": call.what,
                    "batch": str(batch),
                    "form": form,
                    "milliseconds": math.nan,
                }
        yield row | {"times_dense": dense / row["milliseconds"]}


def _measure(call: Call, batch: int, form: str, chosen: Scale, deviation: float) -> dict:
    call()
    device = next(call.module.parameters()).device
    peak = math.nan
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    seconds = timer.blocked_autorange(min_run_time=chosen.seconds).median
    log.info("%s, batch %d, %s: %.3f ms", call.what, batch, form, 1000 * seconds)
    return {
        "what": call.what,
        "batch": str(batch),
        "form": form,
        "milliseconds": 1000 * seconds,
        "samples_per_second": batch / seconds,
        "weights_mib": sum(stored_bytes(linear.weight) for _, linear in _linears(call.module))
        / 2**20,
        "peak_mib": peak,
        "deviation": deviation,
    }


def stored_bytes(weight: torch.Tensor) -> int:
    """Returns how many bytes a weight takes in its form."""
    if weight.layout == torch.sparse_csr:
        parts = [weight.values(), weight.col_indices(), weight.crow_indices()]
    elif hasattr(weight, "packed"):  # semi-structured; cuSPARSELt has no `meta` of its own
        halved: Any = weight
        parts = [part for part in (halved.packed, halved.meta) if part is not None]
    else:
        parts = [weight]
    return sum(part.numel() * part.element_size() for part in parts)


def _linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]


@contextmanager
def _pruned(module: nn.Module, prune: Callable) -> Iterator[list[tuple[str, nn.Linear]]]:
    """Prunes the linear layers of a module, and gives them back what they were."""
    linears = _linears(module)
    before = [linear.weight for _, linear in linears]
    try:
        for _, linear in linears:
            linear.weight = nn.Parameter(prune(linear.weight), requires_grad=False)
        yield linears
    finally:
        for (_, linear), weight in zip(linears, before, strict=True):
            linear.weight = weight


def _two_four(weight: torch.Tensor) -> torch.Tensor:
    pruned, _ = prune_matrix(weight, None, sparsity=0.5, criterion="magnitude", pattern="2:4")
    return pruned


def _without(zeros: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def prune(weight: torch.Tensor) -> torch.Tensor:
        pruned, _ = prune_matrix(weight, None, sparsity=zeros, criterion="magnitude")
        return pruned

    return prune


def _to_csr(_: str, linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(linear.weight.to_sparse_csr(), requires_grad=False)
