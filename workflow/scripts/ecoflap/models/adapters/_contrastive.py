"""Models that compare pictures with texts."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from ecoflap.data.picture import Picture, opened
from ecoflap.models.adapters._images import CHUNK


class Contrastive:
    """Encodes pictures and texts apart, so that each is encoded once however many are compared."""

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Returns what `compare` takes of a few pictures, [n, ...], on the device."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns what `compare` takes of a few texts, [n, ...], on the device."""
        raise NotImplementedError

    def compare(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Returns logits [n_images, n_texts] of what the two functions above returned."""
        raise NotImplementedError

    @torch.no_grad()
    def image_features(self, images: Sequence[Image.Image | Picture]) -> torch.Tensor:
        """Encodes any number of pictures, opening a few at a time; float32 [n, ...] on the host."""
        return _in_chunks(lambda part: self.encode_images([opened(i) for i in part]), images)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Encodes any number of texts; float32 [n, ...] on the host."""
        return _in_chunks(self.encode_texts, texts)

    def similarity(
        self, images: Sequence[Image.Image | Picture], texts: Sequence[str]
    ) -> torch.Tensor:
        """Returns the logits of each picture against each text, float32 [n_images, n_texts]."""
        return self.compare(self.image_features(images), self.text_features(texts))


def _in_chunks(function: Callable[[Sequence], torch.Tensor], items: Sequence) -> torch.Tensor:
    parts = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    return torch.cat([function(part).float().cpu() for part in parts])


def unit(features: torch.Tensor) -> torch.Tensor:
    """Scales vectors [..., d] to length 1."""
    return features / features.norm(dim=-1, keepdim=True)
