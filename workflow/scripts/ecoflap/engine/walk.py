"""Walks a model block by block: statistics of a block's inputs, then its new outputs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType

import torch

from ecoflap.engine import replay, storage
from ecoflap.engine.checks import check_forward, check_pictures
from ecoflap.engine.counted import ALL, Counted
from ecoflap.engine.observe import Observer, told_apart
from ecoflap.engine.uses import CallsAlone
from ecoflap.errors import PruningError
from ecoflap.models.inputs import few_samples
from ecoflap.models.model import Block, Model


class Walk:
    """Runs one block at a time on all batches, replaying the blocks before it.

    Of each batch only the activations that the next block or the model's code between blocks
    will read are kept, wherever `activations.places` puts them.
    """

    def __init__(
        self,
        model: Model,
        batches: Sequence[Mapping],
        criterion: ModuleType,
        tokens: str = ALL,
    ):
        """Finds the order of the blocks, with a few samples of each form of batch.

        Args:
            model: The model.
            batches: Batches on its device; none for a criterion that looks at weights alone.
            criterion: A module of `ecoflap.criteria`, whose statistics are gathered.
            tokens: Which tokens count in them, as in `ecoflap.prune`.
        """
        self.model = model
        self.batches = batches
        self.criterion = criterion
        self.modules = [step.module for step in model.steps()]
        self.counted = Counted(model, batches, tokens)
        self.places = storage.places(model)
        self.traces = [replay.Trace() for _ in batches]
        self.before: replay.Trace | None = None
        self.counts: Mapping[str, int] = {}  # tokens in the last statistics, by matrix name
        first = few_samples(batches[0]) if batches else {}  # logits of all would be the peak
        said = check_forward(model, first) if batches else []
        self.surveys = self._survey()
        self._check_reached()
        if batches:
            check_pictures(model, first, said)

    def _survey(self) -> list[tuple[replay.Trace, frozenset[int]]]:
        """Returns what `blocks.survey` finds for each batch; what has one form is alike.

        Raises:
            PruningError: if batches reach blocks in another order, or a weight is used without a
                call of its module.
        """
        found: dict[tuple, tuple[replay.Trace, frozenset[int]]] = {}
        forms = [tuple((key, tensor.shape) for key, tensor in b.items()) for b in self.batches]
        for form, batch in zip(forms, self.batches, strict=True):
            if form not in found:
                few = few_samples(batch)
                with CallsAlone(self.model):
                    found[form] = replay.survey(
                        self.modules, lambda few=few: self.model.loss(few), self.model.resident
                    )
            self._check_rows(batch)  # of each: of two of one shape the second may be padded alone
        orders = [(number, found[form][0].order()) for number, form in enumerate(forms)]
        other = next((number for number, order in orders if order != orders[0][1]), None)
        if other is not None:
            raise _other_order(other)
        return [found[form] for form in forms]

    def _check_rows(self, batch: Mapping) -> None:
        """Looks at what all matrices read where the shape of a batch does not tell its axes."""
        part = told_apart(batch)
        if part is None:
            return
        with ExitStack() as watched, torch.no_grad():
            for block in self.model.blocks:
                observer = Observer(self.model, block, lambda tokens: tokens.new_zeros(()), {})
                watched.enter_context(observer.watching(part))
            replay.run(
                self.model.block_modules(),
                lambda: self.model.loss(part),
                keep=lambda block: False,
                around=self.model.resident,
                places=self.places,
            )

    def __iter__(self) -> Iterator[Block]:
        """Yields the blocks as the model runs them, each with its weights on the device.

        Without batches they come as the model's modules come. After each block the activations
        that no later block needs are freed.
        """
        for block, following in self._pairs():
            with self.model.resident(block.index):
                yield block
            for number, (calls, needed) in enumerate(self.surveys):
                end = calls.first_call(following.index) if following else 0
                self.traces[number] = self.traces[number].cut(end, needed)

    def _check_reached(self) -> None:
        """Refuses batches that leave out a block, before anything is changed."""
        ran = {index for calls, _ in self.surveys for index in calls.calls}
        idle = [b for b in self.model.blocks if b.matrices and b.index not in ran]
        if idle and self.batches:
            raise PruningError(
                f"the model never runs {idle[0].name} on these batches ({len(idle)} in all)",
                allowed="batches that reach every block",
                fix="Pass batches with all inputs of the model.",
            )

    def __len__(self) -> int:
        """Returns the number of blocks that are walked."""
        return len(self._order())

    def _order(self) -> list[Block]:
        if not self.batches:
            return [block for block in self.model.blocks if block.matrices]
        steps = self.model.steps()
        order = [steps[index] for index in self.surveys[0][0].order()]
        while order and not order[-1].matrices:
            order.pop()
        return order

    def _pairs(self) -> Iterator[tuple[Block, Block | None]]:
        order = self._order()
        return zip(order, [*order[1:], None], strict=True)

    @torch.no_grad()
    def statistics(self, block: Block) -> dict[str, torch.Tensor]:
        """Returns the criterion's statistics of each matrix, summed over the batches."""
        self.before, self.counts = None, {}
        if not self.batches or not block.matrices:
            return {}
        sums: dict[str, torch.Tensor] = {}
        observer = Observer(self.model, block, self.criterion.statistics, sums)
        self.counts = observer.counts
        for number, batch in enumerate(self.batches):
            self._choose_tokens(number, block)
            with observer.watching(batch, self.counted.of(number)):
                trace = self._run(number, block)
            self.before = self.before or trace
        idle = [matrix.name for matrix in block.matrices if matrix.name not in sums]
        if idle:
            raise PruningError(
                f"the model never calls {idle[0]} on these batches, so that nobody sees its inputs",
                allowed="matrices that are called, each on some batch",
                fix="Pass batches with all inputs of the model, prune with magnitude, which reads "
                "no inputs, or leave the list of this block out with load(..., blocks=...).",
            )
        return sums

    def _choose_tokens(self, number: int, block: Block) -> None:
        """Runs a block on a batch to see which tokens count, where that depends on it."""
        if not self.counted.looks_at(block):
            return
        with self.counted.looking(block):
            trace = self._run(number, block)
        output = trace.outputs[self._span(number, block)[0]]
        self.counted.decide(number, block, self.places.get(_first_tensor(output)))

    @torch.no_grad()
    def advance(self, block: Block) -> float:
        """Records the block's outputs after pruning; returns their relative change.

        The change is measured on the first batch.
        """
        if not self.batches:
            return float("nan")
        last = block is self._order()[-1]  # a batch may call blocks more often than its survey saw
        for number in range(len(self.batches)):
            self.traces[number] = self._run(number, block, to_end=last)
        return self._change(block)

    def _change(self, block: Block) -> float:
        """Returns the relative change of the block's outputs on the first batch."""
        if self.before is None:
            return 0.0
        start, stop = self._span(0, block)
        pairs = zip(
            self.before.outputs[start : stop + 1],
            self.traces[0].outputs[start : stop + 1],
            strict=True,
        )
        changed = total = 0.0
        for old, new in pairs:
            a, b = (self.places.get(_first_tensor(value)).float() for value in (old, new))
            changed += (a - b).square().sum(dtype=torch.float64).item()
            total += a.square().sum(dtype=torch.float64).item()
        if not total:
            return math.inf if changed else 0.0
        return (changed / total) ** 0.5

    def _span(self, number: int, block: Block) -> tuple[int, int]:
        """Returns from where to where a batch runs for a block.

        From its first call to its last, or on to the first call of the next one: between them a
        block that came before may be called again.
        """
        calls, _ = self.surveys[number]
        following = next((after for one, after in self._pairs() if one is block), None)
        before_next = calls.first_call(following.index) - 1 if following else 0
        last = max(calls.last_call(block.index), before_next)
        return calls.first_call(block.index), last

    def _run(self, number: int, block: Block, *, to_end: bool = False) -> replay.Trace:
        """Runs a block on a batch, and what lies between its calls; to the model's head if asked.

        Raises:
            PruningError: if the batch calls the blocks in another order than the survey saw.
        """
        expected = self.surveys[number][0].calls
        start, stop = self._span(number, block)
        wanted = set(expected[start : stop + 1])
        if to_end:
            # Nobody reads what a last segment returns, and the logits of all samples are large.
            stop = len(expected) - 2 if expected[-1] >= len(self.model.blocks) else None
        _, trace = replay.run(
            self.modules,
            lambda: self.model.loss(self.batches[number]),
            trace=self.traces[number],
            start=start,
            stop=stop,
            keep=wanted.__contains__,
            around=self.model.resident,
            places=self.places,
        )
        if trace.calls != (expected if stop is None else expected[: stop + 1]):
            raise _other_order(number)
        return trace


def _other_order(number: int) -> PruningError:
    return PruningError(
        f"batch {number} calls the model's blocks in another order than the first batch, or "
        "than one of its form",
        allowed="batches that the model treats alike",
        fix="Pass batches with the same inputs (images, padding) in each, or fewer of them.",
    )


def _first_tensor(output) -> torch.Tensor:
    """Returns the hidden states of a block's output."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
