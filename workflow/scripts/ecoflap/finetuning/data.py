"""What a fine-tuning run learns from, and the batch of each step."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from ecoflap.data import mixes, sampling
from ecoflap.data.encoding import naming
from ecoflap.data.formats import prepare
from ecoflap.errors import DataError
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    from ecoflap.models.model import Model

Item = tuple[Mapping, Mapping]  # an example, and the entry of ``data`` that says what to make of it
Batch = dict[str, torch.Tensor]


def draw(model: "Model", entries: Sequence[Mapping], seed: int) -> tuple[list[Item], list[Item]]:
    """Draws the examples to learn from, and held-out ones that no entry learns from.

    Args:
        model: The model whose tokenizer cuts texts into windows.
        entries: Like entries of config/calibrations.yaml, each with ``held_out``; without
            ``samples`` all that is not held out.
        seed: Chooses the examples.
    """
    found = [sampling.examples_of(model, entry) for entry in entries]
    train, held_out = [], []
    taken: dict[tuple, set[str]] = defaultdict(set)
    for entry, examples in zip(entries, found, strict=True):
        chosen = sampling.choose(examples, entry, seed)
        taken[mixes.origin(entry)] |= {example["id"] for example in chosen}
        train += [(example, entry) for example in chosen]
    for entry, examples in zip(entries, found, strict=True):
        count = entry.get("held_out", 0)
        further = sampling.choose_held_out(examples, taken[mixes.origin(entry)], count, seed)
        held_out += [(example, entry) for example in further]
    return train, held_out


class Steps(Dataset):
    """The batch of each step, made from nothing but the step's number and the seed.

    So a run that goes on after a kill sees what it would have seen. An epoch has all examples in an
    order of its own, but for the last few that fill no batch; of an example with several captions
    each epoch takes one at random.
    """

    def __init__(
        self,
        model: "Model",
        items: Sequence[Item],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ):
        """Counts the steps.

        Args:
            model: The model whose processor encodes.
            items: What `draw` returned first, enough for a batch.
            batch_size: Samples per step, over all processes.
            epochs: How often each example is seen.
            seed: Decides order and choices.
            share: Number of this process, and of all: each has its part of every batch.

        Raises:
            DataError: if a batch has fewer samples than there are processes.
        """
        if batch_size < share[1]:
            raise DataError(
                f"batches of {batch_size} for {share[1]} processes",
                allowed="at least a sample for each",
                fix="Raise batch_size, or start fewer processes.",
            )
        self.model, self.items, self.share = model, items, share
        self.batch_size, self.seed = batch_size, seed
        self.per_epoch = len(items) // batch_size
        self.order = lru_cache(maxsize=1)(self._order)
        self.steps = epochs * self.per_epoch

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Returns this process's part of the batch of a step, tensors [n, ...] on the host."""
        epoch, place = divmod(step, self.per_epoch)
        chosen = self.order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        first, every = self.share
        return encode(self.model, [self.items[i] for i in chosen[first::every]], self.seed, epoch)

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.items)))
        random.Random(seed_from("fine-tuning order", self.seed, epoch)).shuffle(order)
        return order


def encode(model: "Model", items: Sequence[Item], *parts: object) -> Batch:
    """Encodes examples; ``parts`` seed what is chosen of each."""
    prepared = [prepare(example, entry, *parts) for example, entry in items]
    return naming(prepared, model.encode)


def pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """Yields a batch in pieces of equal length, or nearly so, of at most some samples."""
    split = {name: evenly(tensor, size) for name, tensor in batch.items()}
    for values in zip(*split.values(), strict=True):
        yield dict(zip(split, values, strict=True))


def evenly(tensor: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Cuts a tensor [n, ...] into as few parts of at most ``size`` rows as do, none much smaller.

    A last part of one row would leave a contrastive loss nothing to compare.
    """
    return tensor.tensor_split(-(-len(tensor) // size)) if len(tensor) else ()
