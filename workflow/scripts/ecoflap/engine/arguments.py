"""What blocks write into the containers that they are called with.

Later blocks may read it (Gemma 4's layers share keys and values in a dict), so a replay hands it
on, and a recomputation sees each container as it was when its block was called.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

Container = MutableMapping | list
WHOLE = object()  # the key of a list, which is kept as a whole
GONE = object()  # the value of a key that was taken out


@dataclass(frozen=True)
class Write:
    """One change of a container.

    Attributes:
        place: Number of the container among those of the call.
        owner: Number of the container in its forward, by which later changes replace earlier.
        key: What was set.
        value: To what.
    """

    place: int
    owner: int
    key: Hashable
    value: Any


def containers(value: Any) -> Iterator[Container]:
    """Yields the containers that can be written to, in a fixed order.

    Args:
        value: Arguments of a call, nested.
    """
    if isinstance(value, MutableMapping | list):
        yield value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from containers(item)


class Known:
    """Numbers the containers of one forward in the order in which its calls first hold them."""

    def __init__(self):
        self.containers: list[Container] = []  # kept alive: an identity is not used twice
        self.numbers: dict[int, int] = {}

    def number(self, container: Container) -> int:
        """Returns the number of a container."""
        if id(container) not in self.numbers:
            self.numbers[id(container)] = len(self.containers)
            self.containers.append(container)
        return self.numbers[id(container)]


class Contents:
    """What the containers of a call held at one moment."""

    def __init__(self, args: tuple, kwargs: Mapping, known: Known | None = None):
        """Remembers it.

        Args:
            args: Positional arguments of the call.
            kwargs: Named ones.
            known: Numbers the containers of the forward; needed for `writes` alone.
        """
        self.containers = list(containers((args, *kwargs.values())))
        self.held = [_items(container) for container in self.containers]
        self.numbers = [known.number(container) for container in self.containers if known]

    def writes(self) -> list[Write]:
        """Returns what was written since."""
        found = zip(self.containers, self.numbers, self.held, strict=True)
        return [
            Write(place, number, key, value)
            for place, (container, number, held) in enumerate(found)
            for key, value in _changes(held, _items(container))
        ]

    @contextmanager
    def back(self) -> Iterator[None]:
        """Gives the containers back what they held, for a while."""
        now = [_items(container) for container in self.containers]
        try:
            _fill(self.containers, self.held)
            yield
        finally:
            _fill(self.containers, now)


def write(args: tuple, kwargs: Mapping, writes: Sequence[Write], get: Callable) -> None:
    """Writes into the containers of a call what its block wrote when it ran.

    Args:
        args: Positional arguments of the call.
        kwargs: Named ones.
        writes: What `Contents.writes` returned.
        get: Makes a value that the model may keep of one that was stored.
    """
    found = list(containers((args, *kwargs.values()))) if writes else []
    for entry in writes:
        container: Any = found[entry.place]
        if entry.key is WHOLE:
            container[:] = get(entry.value)
        elif entry.value is GONE:
            container.pop(entry.key, None)
        else:
            container[entry.key] = get(entry.value)


def stored(writes: Sequence[Write], put: Callable) -> list[Write]:
    """Returns changes whose values wait where a function puts them."""
    return [w if w.value is GONE else replace(w, value=put(w.value)) for w in writes]


def last(writes: Sequence[Sequence[Write]]) -> list[list[Write]]:
    """Returns, of the changes of calls one after the other, those that no later one replaces."""
    seen: set[tuple[int, Hashable]] = set()
    kept: list[list[Write]] = []
    for entries in reversed(writes):
        kept.append([w for w in entries if (w.owner, w.key) not in seen])
        seen.update((w.owner, w.key) for w in entries)
    return kept[::-1]


def _items(container: Container) -> dict | list:
    return list(container) if isinstance(container, list) else dict(container)


def _changes(before: dict | list, after: dict | list) -> Iterator[tuple[Hashable, Any]]:
    if isinstance(after, list):
        if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True)):
            yield WHOLE, after
        return
    yield from ((key, GONE) for key in before if key not in after)
    for key, value in after.items():
        if key not in before or before[key] is not value:
            yield key, value


def _fill(found: Sequence[Container], contents: Sequence[dict | list]) -> None:
    for container, items in zip(found, contents, strict=True):
        if isinstance(container, list):
            container[:] = items
        else:
            container.clear()
            container.update(items)
