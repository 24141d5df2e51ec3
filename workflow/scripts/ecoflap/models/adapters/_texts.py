"""What texts a model can take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ecoflap.errors import SampleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from transformers import PreTrainedConfig

PICTURES = ("image_token", "boi_token", "video_token")  # of a processor: what stands for pictures


def check_texts(processor: Any, texts: Iterable[str]) -> None:
    """Refuses a text with the token that stands for a picture: there would be too many of them.

    Raises:
        SampleError: with the text.
    """
    tokens = {str(getattr(processor, name, None) or "") for name in PICTURES} - {""}
    for text in texts:
        for token in tokens:
            if token in text:
                raise SampleError(
                    f"the text {text[:100]!r} holds {token!r}, which stands for a picture",
                    allowed="texts of words; the picture's place is made by itself",
                    fix="Remove it from the prompt or from the data set.",
                )


def check_length(batch: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> None:
    """Refuses texts of more tokens than the model has positions.

    Args:
        batch: ``input_ids`` [n, tokens].
        config: The model's.

    Raises:
        SampleError: if there is one.
    """
    length, limit = batch["input_ids"].shape[1], positions(config)
    if length > limit:
        raise SampleError(
            f"a text of {length} tokens",
            allowed=f"at most {limit}, the positions of the model",
            fix="Shorten the text or the prompt, or leave the sample out.",
        )


def positions(config: PreTrainedConfig) -> int:
    """Returns how many tokens a text of a model may have; the largest number if any many."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or sys.maxsize
