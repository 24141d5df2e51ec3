"""Runs a model block by block: record, replay from a cached prefix, stop early.

Each block's ``forward`` is replaced for the length of a ``with``. The model's own code
still computes every argument of every block (T5's position bias, cross-attention states,
rotary embeddings, masks), so nothing here knows an architecture.
"""

import itertools
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ecoflap.engine import arguments
from ecoflap.engine.arguments import Contents, Known, Write
from ecoflap.errors import ModelError

Around = Callable[[int], AbstractContextManager]


def _nothing(block: int) -> AbstractContextManager:
    return nullcontext()


@dataclass
class Trace:
    """What the blocks returned in one forward, in the order of their calls.

    Attributes:
        calls: Index of the block of each call.
        outputs: Its output, nested as the block returned it; None where it was not kept.
        writes: What it wrote into its arguments; empty where its output was not kept.
    """

    calls: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    writes: list[list[Write]] = field(default_factory=list)

    def first_call(self, block: int) -> int:
        """Returns the position of the block's first call; all before it can be replayed."""
        return self.calls.index(block)

    def last_call(self, block: int) -> int:
        """Returns the position of the block's last call."""
        return len(self.calls) - 1 - self.calls[::-1].index(block)

    def order(self) -> list[int]:
        """Returns the blocks in the order in which they run first."""
        return list(dict.fromkeys(self.calls))

    def cut(self, start: int, needed: Collection[int]) -> "Trace":
        """Returns the part that a run from a position on reads; all else can be freed.

        Args:
            start: Position of the first call that will run.
            needed: What `survey` found.
        """
        outputs = [
            output if position in needed or position == start - 1 else _Freed.of(output)
            for position, output in enumerate(self.outputs[:start])
        ]
        return Trace(self.calls[:start], outputs, arguments.last(self.writes[:start]))


@dataclass(frozen=True)
class _Freed:
    """The shape of an output whose values nobody reads again, ready to be returned."""

    shape: Any

    @classmethod
    def of(cls, output: Any) -> "_Freed":
        """Keeps the shapes of an output alone."""
        return output if isinstance(output, cls) else cls(_map(output, _Unread.like))


@dataclass(frozen=True)
class Places:
    """Where the outputs of blocks wait until they are replayed.

    Attributes:
        device: Where the model computes.
        put: Moves an output (detached) to where it waits.
    """

    device: torch.device
    put: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach

    def get(self, kept: torch.Tensor) -> torch.Tensor:
        """Returns a copy on the device: the model may write into what it gets."""
        return kept.to(self.device, copy=True)


class Stop(Exception):
    """Ends a forward as soon as all of interest has happened."""


class _Unread(torch.Tensor):
    """Stands for an output that nothing but the next block reads: a shape without values."""

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def like(cls, tensor: torch.Tensor) -> "_Unread":
        """Returns a stand-in with the shape, dtype and device of a tensor."""
        return torch.Tensor._make_wrapper_subclass(
            cls, tensor.shape, dtype=tensor.dtype, device=tensor.device
        )

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """Refuses every operation: its result would be made of nothing."""
        raise ModelError(
            f"the model reads an earlier block's output ({function}) that it did not read on "
            "the first batch",
            allowed="batches that the model treats alike",
            fix="Pass batches with the same inputs (images, padding) in each.",
        )


def _map(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
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


def _leaves(value: Any) -> Iterator[torch.Tensor]:
    """Yields every tensor of a nested value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _leaves(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)


@contextmanager
def patched(blocks: Sequence[nn.Module], wrap: Callable) -> Iterator[None]:
    """Replaces each block's forward by ``wrap(index, forward, args, kwargs)``."""

    def bind(index: int, forward: Callable) -> Callable:
        return lambda *args, **kwargs: wrap(index, forward, args, kwargs)

    earlier = [vars(block).get("forward") for block in blocks]
    try:
        for index, block in enumerate(blocks):
            vars(block)["forward"] = bind(index, block.forward)  # past nn.Module's slow setattr
        yield
    finally:
        for block, forward in zip(blocks, earlier, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                vars(block)["forward"] = forward


@contextmanager
def checkpointed(
    blocks: Sequence[nn.Module],
    around: Around = _nothing,
    called: Callable[[int], Any] = _nothing,
) -> Iterator[None]:
    """Keeps only the inputs of each block for the backward, which computes it again.

    Args:
        blocks: The model's blocks.
        around: Entered around each block's forward, the second one in the backward too.
        called: Told of each call by the model, not of those in the backward.
    """

    def wrap(index: int, forward: Callable, args: tuple, kwargs: dict) -> Any:
        called(index)
        before, runs = Contents(args, kwargs), itertools.count()

        def body(*args: Any, **kwargs: Any) -> Any:
            again = next(runs) > 0  # in the backward, when later blocks have written on
            with around(index), before.back() if again else nullcontext():
                return forward(*args, **kwargs)

        return checkpoint(body, *args, use_reentrant=False, **kwargs)

    with patched(blocks, wrap):
        yield


def run(
    blocks: Sequence[nn.Module],
    forward: Callable[[], Any],
    *,
    trace: Trace | None = None,
    start: int = 0,
    stop: int | None = None,
    keep: Callable[[int], bool] = lambda block: True,
    around: Around = _nothing,
    places: Places | None = None,
) -> tuple[Any, Trace]:
    """Runs a forward, replaying what is known and keeping what is new.

    Args:
        blocks: The model's blocks.
        forward: Calls the model on one batch.
        trace: Outputs of an earlier run on the same batch.
        start: Calls before this position return the trace's outputs instead of running.
        stop: The forward ends after the call at this position; None runs it to its end.
        keep: Tells whether the new output of a block is worth keeping.
        around: Entered around the forward of each block that runs.
        places: Where outputs are kept; on the blocks' device by default.

    Returns:
        What ``forward`` returned (None after a stop), and the trace of this run.

    Raises:
        ModelError: if the model calls its blocks in another order than in the trace.
    """
    new, inside, known = Trace(), _Inside(), Known()
    earlier = Trace() if trace is None else trace
    places = places or Places(next(blocks[0].parameters()).device)

    def wrap(index: int, block_forward: Callable, args: tuple, kwargs: dict) -> Any:
        if inside.value:  # a part of another block, which runs or is replayed as a whole
            return block_forward(*args, **kwargs)
        position, before = len(new.calls), Contents(args, kwargs, known)
        new.calls.append(index)
        if position < start:
            if earlier.calls[position] != index:
                raise ModelError(
                    f"call {position} went to block {index}, not {earlier.calls[position]}",
                    allowed="models whose order of blocks does not depend on the weights",
                    fix="Prune this model without a cached prefix.",
                )
            kept = earlier.outputs[position]
            new.outputs.append(kept)
            new.writes.append(earlier.writes[position])
            arguments.write(args, kwargs, earlier.writes[position], lambda v: _map(v, places.get))
            output = kept.shape if isinstance(kept, _Freed) else _map(kept, places.get)
        else:
            with inside, around(index):
                output = block_forward(*args, **kwargs)
            kept = keep(index)
            new.outputs.append(_map(output, places.put) if kept else None)
            written = before.writes() if kept else []
            new.writes.append(arguments.stored(written, lambda v: _map(v, places.put)))
        if position == stop:
            raise Stop
        return output

    with patched(blocks, wrap):
        try:
            return forward(), new
        except Stop:
            return None, new


def survey(
    blocks: Sequence[nn.Module], forward: Callable[[], Any], around: Around = _nothing
) -> tuple[Trace, frozenset[int]]:
    """Finds out, with one forward, in which order blocks run and which outputs are read later.

    Most outputs are read by the next call alone, so a replay that starts after that call never
    looks at them. Others are read by the model's code between blocks (an encoder's last output,
    features taken from the middle of a tower) or by a block further on.

    Args:
        blocks: The model's blocks.
        forward: Calls the model on one batch.
        around: Entered around each block's forward.

    Returns:
        The calls, without outputs, and the positions whose outputs something else than the next
        call reads.

    Raises:
        ModelError: if a block changes a tensor that it is given, and another one reads it: a
            replay would hand on the unchanged one.
    """
    trace, watcher = Trace(), _Watcher()

    def wrap(index: int, block_forward: Callable, args: tuple, kwargs: dict) -> Any:
        if watcher.inside.value:
            return block_forward(*args, **kwargs)
        position = len(trace.calls)
        trace.calls.append(index)
        trace.outputs.append(None)
        watcher.read((args, kwargs), unless=position - 1)
        versions = [(tensor, tensor._version) for tensor in _leaves((args, kwargs))]
        with watcher.inside, around(index):
            output = block_forward(*args, **kwargs)
        watcher.spoil(tensor for tensor, version in versions if tensor._version != version)
        watcher.own(output, position)
        return output

    with torch.no_grad(), patched(blocks, wrap), watcher:
        forward()
    return trace, frozenset(watcher.needed)


class _Inside:
    """Tells whether a block is running."""

    value = False

    def __enter__(self) -> None:
        self.value = True

    def __exit__(self, *_: object) -> None:
        self.value = False


class _Watcher(TorchDispatchMode):
    """Notes which outputs of blocks are read by operations outside of blocks."""

    def __init__(self):
        super().__init__()
        self.owners: dict[int, tuple[weakref.ref, int]] = {}
        self.spoilt: dict[int, weakref.ref] = {}
        self.needed: set[int] = set()
        self.inside = _Inside()

    def own(self, output: Any, position: int) -> None:
        """Remembers whose output these tensors are."""
        for tensor in _leaves(output):
            self.owners[_storage(tensor)] = (weakref.ref(tensor), position)
            self.spoilt.pop(_storage(tensor), None)

    def spoil(self, tensors: Iterable[torch.Tensor]) -> None:
        """Remembers tensors that a block changed in place."""
        self.spoilt.update({_storage(tensor): weakref.ref(tensor) for tensor in tensors})

    def read(self, values: Any, unless: int | None = None) -> None:
        """Notes that these values are read."""
        for tensor in _leaves(values):
            if self.spoilt.get(_storage(tensor), _gone)() is not None:
                raise ModelError(
                    f"a block changes a tensor {tuple(tensor.shape)} in place that the model "
                    "reads again",
                    allowed="blocks that hand on what they compute as their output",
                    fix="Score with gradnorm and prune with magnitude: they replay nothing.",
                )
            alive, position = self.owners.get(_storage(tensor), (_gone, -1))
            if alive() is not None and position != unless:
                self.needed.add(position)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Runs the operation, noting what it reads."""
        if not self.inside.value:
            self.read((args, kwargs or {}))
        return function(*args, **(kwargs or {}))


def _gone() -> None:
    return None


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
