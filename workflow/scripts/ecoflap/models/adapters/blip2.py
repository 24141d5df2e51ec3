"""BLIP-2 with an encoder-decoder language model (T5)."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from ecoflap.models.adapters import _generation
from ecoflap.models.adapters._images import distinct
from ecoflap.models.adapters._texts import check_texts
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import IGNORED, BlockNames, Model


class Adapter(Model):
    """BLIP-2: vision tower, Q-Former (never pruned), T5."""

    module: Blip2ForConditionalGeneration

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Loads the model and its processor from a folder or the hub."""
        module = loader.module(Blip2ForConditionalGeneration, blocks)
        return cls(module, loader.processor(AutoProcessor), blocks)

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image``, ``prompt`` and ``target``.

        Returns:
            pixel_values [n, 3, height, width], input_ids and attention_mask [n, prompt tokens],
            labels [n, target tokens] with -100 for padding.
        """
        batch = self._inputs([e["image"] for e in examples], [e["prompt"] for e in examples])
        batch["labels"] = self._labels([e["target"] for e in examples])
        return batch

    def image_tokens(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns where the states of the Q-Former's queries stand, as `Model.image_tokens`."""
        return batch["input_ids"] == self.module.config.image_token_index

    def _inputs(self, images: Sequence, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        check_texts(self.processor, prompts)
        unique, rows = distinct(images)
        encoded = self.processor(
            images=unique, text=list(prompts), padding=True, return_tensors="pt"
        )
        return {**encoded, "pixel_values": encoded["pixel_values"][rows]}

    def _labels(self, targets: Sequence[str]) -> torch.Tensor:
        tokens = self.processor.tokenizer(list(targets), padding=True, return_tensors="pt")
        return tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, IGNORED)

    @torch.no_grad()
    def generate(
        self,
        images: Sequence,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        **search: Unpack[_generation.Search],
    ) -> list[str]:
        """Answers prompts about images.

        Args:
            images: PIL images.
            prompts: One per image.
            max_new_tokens: Length limit of the answer.
            **search: Arguments of `generation.beam_search`; greedy without.
        """
        batch = self.to_device(self._inputs(images, prompts))
        tokens = _generation.generate(self.module, batch, max_new_tokens=max_new_tokens, **search)
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def decoding(
        self, *, max_new_tokens: int, **search: Unpack[_generation.Search]
    ) -> dict[str, Any]:
        """Returns the settings of `generate`, for the same arguments but images and prompts."""
        return _generation.told(self.module, max_new_tokens=max_new_tokens, **search)

    @torch.no_grad()
    def log_likelihood(
        self, images: Sequence, prompts: Sequence[str], targets: Sequence[str]
    ) -> list[float]:
        """Returns log p(target | image, prompt) summed over the target's tokens."""
        batch = self.to_device({**self._inputs(images, prompts), "labels": self._labels(targets)})
        log_probabilities = self.module(**batch).logits.float().log_softmax(-1)  # [n, t, vocab]
        labels = batch["labels"]
        chosen = log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return chosen.masked_fill(labels == IGNORED, 0).sum(-1).tolist()
