"""Watches what the matrices of a block read during a forward, padding removed."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from ecoflap.errors import PruningError
from ecoflap.models.model import IGNORED, Block, Matrix, Model

# Arguments by which a block gets the hidden states of another stack.
OTHER_STACKS = ("encoder_hidden_states", "cross_attention_states", "image_hidden_states")


class Observer:
    """Adds up the statistics of the inputs of a block's matrices, batch after batch."""

    def __init__(self, model: Model, block: Block, function: Callable, sums: dict):
        """Prepares to watch.

        Args:
            model: Says which tokens are padding.
            block: The block to watch.
            function: Turns inputs [n_tokens, n_in] into statistics, a tensor.
            sums: Statistics by matrix name; those of each batch are added.
        """
        self.model, self.block = model, block
        self.function, self.sums = function, sums
        self.counts: Counter[str] = Counter()  # tokens in the sums, by matrix name
        # The instance's forward may be patched; its class tells the names of the arguments.
        self.names = list(inspect.signature(type(block.module).forward).parameters)[1:]

    @contextmanager
    def watching(
        self, batch: Mapping[str, torch.Tensor], counted: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Adds the statistics of a batch that the model runs on meanwhile.

        Args:
            batch: The batch.
            counted: Which tokens of its ``input_ids`` count, bool [n, tokens]; all if None.
        """
        self.batch, self.counted = batch, counted
        self.other_states: list[torch.Tensor] = []
        self.attended: torch.Tensor | None = None
        # Query, key and value read one tensor: its statistics are computed once.
        self.known: list[tuple[torch.Tensor, int, torch.Tensor, int]] = []
        handles = [
            matrix.module.register_forward_pre_hook(partial(self._add, matrix))
            for matrix in self.block.matrices
        ]
        handles.append(self.block.module.register_forward_pre_hook(self._note, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, _: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        """Remembers the states of other stacks and the mask that the block is called with."""
        arguments = [*zip(self.names, args, strict=False), *kwargs.items()]
        self.other_states = [
            value for name, value in arguments if any(part in name for part in OTHER_STACKS)
        ]
        sees = self.block.tower == "vision"  # padding of texts is told by the batch
        masks = [value for name, value in arguments if sees and "attention_mask" in name]
        self.attended = next((attended(m) for m in masks if isinstance(m, torch.Tensor)), None)

    def _add(self, matrix: Matrix, _: torch.nn.Module, args: tuple) -> None:
        inputs = args[0]
        version = inputs._version  # an in-place change makes other inputs of the same tensor
        known = ((v, c) for t, n, v, c in self.known if t is inputs and n == version)
        found = next(known, None)
        if found is None:
            tokens = self._tokens(matrix, inputs)
            found = self.function(tokens), len(tokens)
            self.known.append((inputs, version, *found))
        value, count = found
        self.counts[matrix.name] += count
        earlier = self.sums.get(matrix.name)
        self.sums[matrix.name] = value.clone() if earlier is None else earlier.add_(value)

    def _tokens(self, matrix: Matrix, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the real tokens of the inputs, [n_tokens, n_in]."""
        foreign = any(inputs is states for states in self.other_states)
        valid = self.model.valid_tokens(matrix, self.batch, encoder_states=foreign)
        if valid is None and not foreign:
            valid = self.attended
        if self.counted is not None and self.model.reads_prompt(matrix, encoder_states=foreign):
            valid = self.counted if valid is None else valid & self.counted
        rows = inputs.reshape(-1, inputs.shape[-1])
        if valid is None:
            return rows
        if not valid.any():
            raise PruningError(
                f"a batch has no real token for {matrix.name}",
                allowed="batches with tokens that are not padding",
                fix="Look at its attention_mask and labels.",
            )
        # A model may join the sequences (OPT) or add an axis for heads (DeepSeek).
        shape = inputs.shape[:-1]
        if _sizes(shape) not in (_sizes(valid.shape), _sizes(valid.flatten().shape)):
            raise PruningError(
                f"{matrix.name} reads tokens {tuple(shape)}, the padding mask of the batch is "
                f"{tuple(valid.shape)}",
                allowed="inputs with one row for each token of the mask",
                fix="Pass batches without padding and without masks, leave the list of this block "
                "out with load(..., blocks=...), or write an adapter whose valid_tokens knows "
                "this matrix.",
            )
        return rows[valid.flatten()]


def attended(mask: torch.Tensor) -> torch.Tensor | None:
    """Returns which patches of pictures are real: those that some patch attends to.

    Towers that take pictures of any shape (SigLIP 2, Idefics) fill them up with patches that
    their attention leaves out.

    Args:
        mask: As a block gets it: [n, tokens], or [n, heads, queries, tokens] of booleans or of
            numbers that are added to the logits of the attention.

    Returns:
        bool [n, tokens]; None if all are real, or the mask is of another form.
    """
    if mask.dim() == 4 and mask.is_floating_point():
        mask = mask > torch.finfo(mask.dtype).min / 2
    if mask.dim() == 4:
        mask = mask.bool().any(dim=2).any(dim=1)
    return None if mask.dim() != 2 or mask.all() else mask.bool()


def told_apart(batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor] | None:
    """Returns a padded batch of as many samples as tokens without its last sample; else None.

    Models that compute on [tokens, samples] (XLNet, FSMT) are known by the shape of what their
    matrices read, which such a batch does not tell.

    Args:
        batch: One batch.

    Raises:
        PruningError: if a tensor has not one entry for each sample.
    """
    square = [
        name
        for name, tensor in batch.items()
        if (name.endswith("attention_mask") and tensor.dim() == 2 and not tensor.all())
        or (name == "labels" and tensor.dim() == 2 and (tensor == IGNORED).any())
    ]
    square = [name for name in square if len(batch[name]) == batch[name].shape[1] > 2]
    if not square:
        return None
    samples = len(batch[square[0]])
    if any(len(tensor) != samples for tensor in batch.values()):
        raise PruningError(
            f"a padded batch of {samples} samples with {samples} tokens each, in which samples "
            "and tokens cannot be told apart",
            allowed="batches of other sizes",
            fix="Pass batches of one sample more or less.",
        )
    return {name: tensor[:-1] for name, tensor in batch.items()}


def _sizes(shape: torch.Size) -> list[int]:
    """Returns the sizes of the axes that are longer than 1."""
    return [size for size in shape if size != 1]
