"""CLIP: two towers and the contrastive loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel

from ecoflap.models.adapters._contrastive import Contrastive, unit
from ecoflap.models.adapters._texts import positions
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import BlockNames, Model


class Adapter(Contrastive, Model):
    """CLIP; Wanda compares rows in both towers, as published."""

    module: Any  # what CLIPModel returns is more than it says
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
        images, texts = [e["image"] for e in examples], [e["caption"] for e in examples]
        encoded = self.processor(images=images, text=texts, **self._text_options())
        return {name: encoded[name] for name in ("pixel_values", "input_ids", "attention_mask")}

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Returns embeddings of length 1, [n, d]."""
        batch = self.to_device(self.processor(images=list(images), return_tensors="pt"))
        return unit(self.module.get_image_features(**batch).pooler_output)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns embeddings of length 1, [n, d]."""
        batch = self.to_device(self.processor(text=list(texts), **self._text_options()))
        return unit(self.module.get_text_features(**batch).pooler_output)

    def _text_options(self) -> dict:
        """Cuts texts to the model's positions, also where its tokenizer names no limit."""
        limit = min(self.processor.tokenizer.model_max_length, positions(self.module.config))
        return {"padding": True, "truncation": True, "max_length": limit, "return_tensors": "pt"}

    def compare(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Returns scaled cosines [n_images, n_texts]."""
        return images @ texts.T * self.module.logit_scale.exp().float().cpu()
