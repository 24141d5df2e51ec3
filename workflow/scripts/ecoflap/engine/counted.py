"""Which tokens of a prompt with images count in the statistics of a pruning pass."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from ecoflap.errors import PruningError
from ecoflap.models.model import Block, Model
from ecoflap.plugins import unknown

ALL, TEXT, DRIFT = "all", "text", "drift"
TOKENS = (ALL, TEXT, DRIFT)


class Counted:
    """The tokens that count in each batch, sample by sample, whatever else is in the batch.

    ``text`` leaves the tokens of images out. ``drift`` keeps of them those that a block changes
    most, by 1 - cosine between what it makes of a token and what it was given: of each sample
    round(min(1, mean over its image tokens) * text tokens), as ATV-Pruning does (CVPR 2026). Where
    a decoder reads the states of an encoder, those count that the encoder's last block chose.
    """

    def __init__(self, model: Model, batches: Sequence[Mapping[str, torch.Tensor]], tokens: str):
        """Finds the images.

        Args:
            model: The model.
            batches: Batches on its device.
            tokens: ``all``, ``text`` or ``drift``.

        Raises:
            PruningError: for other words, or a model without images among its text tokens.
        """
        if tokens not in TOKENS:
            raise PruningError(unknown("choice of tokens", tokens, TOKENS))
        self.model, self.drifts = model, tokens == DRIFT
        images = [] if tokens == ALL else [model.image_tokens(batch) for batch in batches]
        self.images = [image for image in images if image is not None]
        if len(self.images) < len(images):
            raise PruningError(
                f"tokens: {tokens} with {type(model.module).__name__}, which puts no images "
                "among the tokens of a text",
                allowed=f"tokens: {ALL}; {TEXT} and {DRIFT} with the families blip2 and image-text",
                fix="Remove tokens.",
            )
        self.counted = [~image for image in self.images]
        self.real = [
            batch.get("attention_mask", torch.ones_like(image)).bool()
            for batch, image in zip(batches, self.images, strict=False)
        ]

    def of(self, number: int) -> torch.Tensor | None:
        """Returns which tokens of a batch count, bool [n, tokens]; None if all do."""
        return self.counted[number] if self.counted else None

    def looks_at(self, block: Block) -> bool:
        """Tells whether a block decides; it then runs once before its statistics are taken."""
        return self.drifts and self.model.reads_prompt(block.matrices[0])

    @contextmanager
    def looking(self, block: Block) -> Iterator[None]:
        """Keeps what a block is given at its first call meanwhile."""
        # The instance's forward may be patched; its class tells the name of the first argument.
        first = list(inspect.signature(type(block.module).forward).parameters)[1]
        self.given = torch.empty(0)

        def keep(_: nn.Module, args: tuple, kwargs: dict) -> None:
            if not self.given.numel():  # a copy: a block may write into what it gets
                self.given = (args[0] if args else kwargs[first]).detach().clone()

        handle = block.module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def decide(self, number: int, block: Block, made: torch.Tensor) -> None:
        """Chooses the tokens of a batch.

        Args:
            number: The batch.
            block: The block that was looked at.
            made: What its first call returned, [n, tokens, width].

        Raises:
            PruningError: if the block does not run on the tokens of ``input_ids``.
        """
        image, given = self.images[number], self.given
        if given.shape != made.shape or given.shape[:-1].numel() != image.numel():
            raise PruningError(
                f"{block.name} makes {tuple(made.shape)} of {tuple(given.shape)}, with "
                f"{tuple(image.shape)} tokens in the batch",
                allowed="blocks that return a state for each token of input_ids",
                fix=f"Calibrate with tokens: {ALL} or {TEXT}.",
            )
        drift = 1 - functional.cosine_similarity(given.float(), made.float(), dim=-1)
        self.counted[number] = chosen(drift.reshape(image.shape), image, self.real[number])


def chosen(drift: torch.Tensor, image: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Returns the tokens that count by their drift.

    Args:
        drift: How far a block turns each token, 0 to 2, [n, tokens].
        image: Which tokens are those of an image, bool [n, tokens].
        real: Which are no padding, bool [n, tokens].

    Returns:
        bool [n, tokens]: all of the text, and of each sample's image those that drift most, the
        first ones on a tie.
    """
    counted = ~image
    for row, (drifts, seen) in enumerate(zip(drift, image & real, strict=True)):
        places = seen.nonzero().squeeze(1)
        if not len(places):
            continue
        texts = int((counted[row] & real[row]).sum())
        share = min(1.0, drifts[places].mean(dtype=torch.float64).item())
        order = drifts[places].argsort(descending=True, stable=True)
        counted[row, places[order[: round(share * texts)]]] = True
    return counted
