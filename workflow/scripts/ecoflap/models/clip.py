"""CLIP: two towers and the contrastive loss."""

from collections.abc import Mapping, Sequence

import torch
from transformers import AutoProcessor, CLIPModel

from ecoflap.models.base import BlockNames, Model
from ecoflap.models.loading import Loader


class Adapter(Model):
    """CLIP; Wanda compares rows in both towers, as published."""

    row_towers = ("vision", "language")

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Loads the model and its processor from a folder or the hub."""
        module = loader.module(CLIPModel, blocks)
        return cls(module, loader.processor(AutoProcessor), blocks)

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image`` and ``caption``.

        Returns:
            pixel_values [n, 3, height, width], input_ids and attention_mask [n, tokens].
        """
        encoded = self.processor(
            images=[e["image"] for e in examples],
            text=[e["caption"] for e in examples],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("pixel_values", "input_ids", "attention_mask")}

    @torch.no_grad()
    def similarity(self, images: Sequence, texts: Sequence[str]) -> torch.Tensor:
        """Returns the logits of each image against each text, [n_images, n_texts]."""
        examples = {"images": list(images), "text": list(texts)}
        encoded = self.processor(**examples, padding=True, truncation=True, return_tensors="pt")
        return self.module(**self.to_device(encoded)).logits_per_image.float().cpu()
