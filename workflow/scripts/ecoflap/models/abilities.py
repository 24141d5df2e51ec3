"""What models can do beside a loss: each family offers what its kinds of task need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from PIL import Image

    from ecoflap.data.picture import Picture


class Writing(Protocol):
    """Answers prompts about images in words."""

    def generate(
        self, images: Sequence, prompts: Sequence[str], *, max_new_tokens: int, **search: Any
    ) -> list[str]:
        """Returns an answer for each prompt."""
        ...

    def decoding(self, *, max_new_tokens: int, **search: Any) -> dict[str, Any]:
        """Returns the settings of `generate`."""
        ...

    def log_likelihood(
        self, images: Sequence, prompts: Sequence[str], targets: Sequence[str]
    ) -> list[float]:
        """Returns log p(target | image, prompt) of each target."""
        ...


class Reading(Protocol):
    """Gives windows of text a likelihood."""

    def windows(self, text: str, length: int, special_tokens: bool = False) -> torch.Tensor:
        """Cuts a text into windows of tokens, int64 [n_windows, length]."""
        ...

    def negative_log_likelihood(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the summed loss of each window's tokens after the first, float64 [n]."""
        ...


class Judging(Protocol):
    """Tells whether sentences are true of two pictures."""

    def judge(self, left: Sequence, right: Sequence, texts: Sequence[str]) -> list[bool | None]:
        """Returns for each sentence whether it is true; None where the model does not say."""
        ...


class Matching(Protocol):
    """Compares pictures with texts, at once and, where it has a ``match``, pair by pair."""

    def similarity(
        self, images: "Sequence[Image.Image | Picture]", texts: Sequence[str]
    ) -> torch.Tensor:
        """Returns the logits of each picture against each text, [n_images, n_texts]."""
        ...

    def match(self, images: Sequence, texts: Sequence[str]) -> list[float]:
        """Returns the logit of a match for each image with the text beside it."""
        ...
