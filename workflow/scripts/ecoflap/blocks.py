"""Runs a model block by block: record, replay from a cached prefix, stop early.

Each block's ``forward`` is replaced for the length of a ``with``. The model's own code
still computes every argument of every block (T5's position bias, cross-attention states,
rotary embeddings, masks), so nothing here knows an architecture.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ecoflap.errors import ModelError, message


@dataclass
class Trace:
    """What the blocks returned in one forward, in the order of their calls.

    Attributes:
        calls: Index of the block of each call.
        outputs: Its detached output, nested as the block returned it; None where it was not kept.
    """

    calls: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def first_call(self, block: int) -> int:
        """Returns the position of the block's first call; all before it can be replayed."""
        return self.calls.index(block)

    def last_call(self, block: int) -> int:
        """Returns the position of the block's last call."""
        return len(self.calls) - 1 - self.calls[::-1].index(block)

    def order(self) -> list[int]:
        """Returns the blocks in the order in which they run first."""
        return list(dict.fromkeys(self.calls))


class _Stop(Exception):
    """Ends a forward after the block of interest."""


def _map(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Applies a function to every tensor of a nested output."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        items = {key: _map(item, function) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, tuple | list):
        items = [_map(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


@contextmanager
def _patched(blocks: Sequence[nn.Module], wrap: Callable) -> Iterator[None]:
    """Replaces each block's forward by ``wrap(index, forward, args, kwargs)``."""

    def bind(index: int, forward: Callable) -> Callable:
        return lambda *args, **kwargs: wrap(index, forward, args, kwargs)

    earlier = [vars(block).get("forward") for block in blocks]
    try:
        for index, block in enumerate(blocks):
            block.forward = bind(index, block.forward)
        yield
    finally:
        for block, forward in zip(blocks, earlier, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Keeps only the inputs of each block for the backward, which computes it again."""

    def wrap(index: int, forward: Callable, args: tuple, kwargs: dict) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    with _patched(blocks, wrap):
        yield


def run(
    blocks: Sequence[nn.Module],
    forward: Callable[[], Any],
    *,
    trace: Trace | None = None,
    start: int = 0,
    stop: int | None = None,
    keep: Callable[[int], bool] = lambda block: True,
) -> tuple[Any, Trace]:
    """Runs a forward, replaying what is known and keeping what is new.

    Args:
        blocks: The model's blocks.
        forward: Calls the model on one batch.
        trace: Outputs of an earlier run on the same batch.
        start: Calls before this position return the trace's outputs instead of running.
        stop: The forward ends after the call at this position; None runs it to its end.
        keep: Tells whether the new output of a block is worth keeping.

    Returns:
        What ``forward`` returned (None after a stop), and the trace of this run.

    Raises:
        ModelError: if the model calls its blocks in another order than in the trace.
    """
    new = Trace()

    def wrap(index: int, block_forward: Callable, args: tuple, kwargs: dict) -> Any:
        position = len(new.calls)
        new.calls.append(index)
        if position < start:
            if trace.calls[position] != index:
                raise ModelError(
                    message(
                        f"call {position} went to block {index}, not {trace.calls[position]}",
                        "models whose blocks run in an order that does not depend on the weights",
                        "Prune this model without a cached prefix.",
                    )
                )
            kept = trace.outputs[position]
            new.outputs.append(kept)
            output = _map(kept, torch.Tensor.clone)  # the model may write into what it gets
        else:
            output = block_forward(*args, **kwargs)
            new.outputs.append(_map(output, torch.Tensor.detach) if keep(index) else None)
        if position == stop:
            raise _Stop
        return output

    with _patched(blocks, wrap):
        try:
            return forward(), new
        except _Stop:
            return None, new
