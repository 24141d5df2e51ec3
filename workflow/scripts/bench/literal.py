"""The published algorithms, as plain as they are written. Nothing here uses the engine.

Two slips of the published code are left out, so that the results can be compared: thresholds
remove exactly the planned count (not one weight more), and T5's position bias reaches every block.
Models must have their caches switched off.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ecoflap.seeds import seed_from

BLOCK_SIZE = 128  # columns that SparseGPT treats at a time
DAMPING = 0.01  # of the Hessian's mean diagonal

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[Batch], torch.Tensor]


@torch.no_grad()
def zeroth(
    loss: Loss,
    weights: Mapping[str, torch.Tensor],
    batches: Sequence[Batch],
    *,
    seed: int = 0,
    epsilon: float = 1e-3,
) -> dict[str, float]:
    """ECoFLaP's zeroth-order score: two full forwards per matrix and batch (Section 3.2).

    Args:
        loss: The loss of a batch, a scalar.
        weights: The matrices to score, [n_out, n_in] each, by name.
        batches: Calibration batches.
        seed: Seed of the noise, with the name of the matrix and the number of the batch.
        epsilon: Size of the step.

    Returns:
        Mean over batches of ``abs(L(W + eps z) - L(W - eps z)) / (2 eps)``, by name.
    """
    scores = {}
    for name, weight in weights.items():
        dense = weight.clone()
        slopes = []
        for number, batch in enumerate(batches):
            noise_seed = seed_from("zeroth", seed, name, number, 0)
            generator = torch.Generator(weight.device).manual_seed(noise_seed)
            noise = torch.randn(weight.shape, generator=generator, device=weight.device)
            weight.copy_(dense.float() + epsilon * noise)
            above = loss(batch).item()
            weight.copy_(dense.float() - epsilon * noise)
            below = loss(batch).item()
            weight.copy_(dense)
            slopes.append(abs(above - below) / (2 * epsilon))
        scores[name] = sum(slopes) / len(slopes)
    return scores


def first(
    loss: Loss, weights: Mapping[str, torch.Tensor], batches: Sequence[Batch]
) -> dict[str, float]:
    """ECoFLaP's first-order score: one backward per batch, all gradients alive at once.

    Args:
        loss: The loss of a batch, a scalar.
        weights: The matrices to score, by name.
        batches: Calibration batches.

    Returns:
        Mean over batches of ``sum(abs(W) * abs(dL/dW))``, by name.
    """
    scores = dict.fromkeys(weights, 0.0)
    for batch in batches:
        loss(batch).backward()
        for name, weight in weights.items():
            gradient = cast(torch.Tensor, weight.grad)
            scores[name] += (weight.detach() * gradient).abs().sum().item() / len(batches)
            weight.grad = None
    return scores


class Wanda:
    """Wanda for one Linear (Sun et al. 2023, Algorithm 1)."""

    def __init__(self, linear: nn.Linear, by_row: bool):
        """Args: the layer, and whether weights compete within a row or within the matrix."""
        self.weight = linear.weight
        self.by_row = by_row
        self.scale = torch.zeros(self.weight.shape[1], device=self.weight.device)
        self.count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Takes the inputs of some samples, [n_samples, n_tokens, n_in]."""
        samples = len(inputs)
        inputs = inputs.reshape(-1, inputs.shape[-1]).T.float()
        self.scale *= self.count / (self.count + samples)
        self.count += samples
        self.scale += inputs.norm(p=2, dim=1) ** 2 / self.count

    def prune(self, sparsity: float) -> None:
        """Zeroes the weights of smallest ``abs(W_ij) ||X_j||``, found by sorting all of them."""
        metric = self.weight.abs().float() * self.scale.sqrt()
        rows = metric if self.by_row else metric.reshape(1, -1)
        order = rows.sort(dim=1, stable=True).indices
        mask = torch.zeros_like(rows, dtype=torch.bool)
        mask.scatter_(1, order[:, : int(rows.shape[1] * sparsity)], True)
        self.weight[mask.reshape(metric.shape)] = 0


class SparseGPT:
    """SparseGPT for one Linear (Frantar, Alistarh 2023, Algorithm 1)."""

    def __init__(self, linear: nn.Linear, by_row: bool):
        """Args: the layer; weights compete within a block of columns, whatever ``by_row``."""
        self.weight = linear.weight
        n_in = self.weight.shape[1]
        self.hessian = torch.zeros(n_in, n_in, device=self.weight.device)
        self.count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Takes the inputs of some samples, [n_samples, n_tokens, n_in]."""
        samples = len(inputs)
        inputs = inputs.reshape(-1, inputs.shape[-1]).T.float()
        self.hessian *= self.count / (self.count + samples)
        self.count += samples
        inputs = math.sqrt(2 / self.count) * inputs
        self.hessian += inputs @ inputs.T

    def prune(self, sparsity: float) -> None:
        """Removes weights column by column and makes up for them in the columns that follow."""
        w = self.weight.float().clone()
        inverse = self._inverse(w)
        for start in range(0, w.shape[1], BLOCK_SIZE):
            end = min(start + BLOCK_SIZE, w.shape[1])
            block, errors = w[:, start:end].clone(), torch.zeros_like(w[:, start:end])
            pruned = torch.zeros_like(block)
            part = inverse[start:end, start:end]
            metric = block**2 / part.diagonal().reshape(1, -1) ** 2
            ordered = metric.flatten().sort().values
            mask = metric < ordered[int(metric.numel() * sparsity)]
            for j in range(end - start):
                column = block[:, j]
                kept = column.clone()
                kept[mask[:, j]] = 0
                pruned[:, j] = kept
                error = (column - kept) / part[j, j]
                block[:, j:] -= error.unsqueeze(1) @ part[j, j:].unsqueeze(0)
                errors[:, j] = error
            w[:, start:end] = pruned
            w[:, end:] -= errors @ inverse[start:end, end:]
        self.weight.copy_(w)

    def _inverse(self, w: torch.Tensor) -> torch.Tensor:
        hessian = self.hessian
        dead = hessian.diagonal() == 0
        hessian.diagonal()[dead] = 1
        w[:, dead] = 0
        hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return torch.linalg.cholesky(inverse, upper=True)


class _Caught(Exception):
    """Ends a forward when the arguments of the first layers are known."""


def _catch(layers: Sequence[nn.Module], forward: Callable[[], Any]) -> list[tuple[tuple, dict]]:
    """Returns the arguments of the first two layers; those of the second fit all later ones."""
    calls: list[tuple[tuple, dict]] = []

    def catch(_, args: tuple, kwargs: dict) -> None:
        calls.append((args, kwargs))
        if len(calls) == 2:
            raise _Caught

    handles = [layer.register_forward_pre_hook(catch, with_kwargs=True) for layer in layers[:2]]
    try:
        forward()
    except _Caught:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _feed(pruner: "Wanda | SparseGPT", _: nn.Module, args: tuple) -> None:
    pruner.add(args[0])


def _call(layer: nn.Module, hidden: torch.Tensor, call: tuple[tuple, dict]) -> torch.Tensor:
    args, kwargs = call
    output = layer(hidden, *args[1:], **kwargs)
    return output if isinstance(output, torch.Tensor) else output[0]


@torch.no_grad()
def prune(
    towers: Sequence[tuple[Sequence[nn.Module], bool]],
    forward: Callable[[Batch], Any],
    samples: Sequence[Batch],
    *,
    criterion: type[Wanda] | type[SparseGPT],
    sparsity: float,
) -> None:
    """The published layer-wise pass, in place: samples one by one, layer after layer.

    Args:
        towers: For each tower, in the order in which they run, its layers (at least two), and
            whether weights compete within a row.
        forward: Runs the model on one sample.
        samples: Batches of one without padding.
        criterion: `Wanda` or `SparseGPT`.
        sparsity: Fraction of each matrix to remove.
    """
    for layers, by_row in towers:
        caught = [_catch(layers, lambda sample=sample: forward(sample)) for sample in samples]
        hidden = [calls[0][0][0] for calls in caught]
        for number, layer in enumerate(layers):
            arguments = [calls[min(number, 1)] for calls in caught]
            linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
            pruners = [criterion(linear, by_row) for linear in linears]
            handles = [
                linear.register_forward_pre_hook(partial(_feed, pruner))
                for linear, pruner in zip(linears, pruners, strict=True)
            ]
            for sample, call in zip(hidden, arguments, strict=True):
                _call(layer, sample, call)
            for handle in handles:
                handle.remove()
            for pruner in pruners:
                pruner.prune(sparsity)
            hidden = [
                _call(layer, sample, call) for sample, call in zip(hidden, arguments, strict=True)
            ]
