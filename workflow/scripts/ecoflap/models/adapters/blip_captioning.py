"""BLIP that describes pictures: vision tower and text decoder."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch

from ecoflap.models.adapters._blip import Blip
from ecoflap.models.adapters._generation import Search


class Adapter(Blip):
    """``BlipForConditionalGeneration``."""

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image`` and ``caption``.

        Returns:
            pixel_values [n, 3, height, width]; input_ids, attention_mask and labels [n, tokens],
            labels with -100 for padding.
        """
        captions = self.tokens([e["caption"] for e in examples])
        captions["input_ids"] = self.for_decoder(captions["input_ids"])
        pixels = self.pixels([e["image"] for e in examples])
        return {**pixels, **captions, "labels": self.labels(captions)}

    @torch.no_grad()
    def generate(
        self,
        images: Sequence,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        **search: Unpack[Search],
    ) -> list[str]:
        """Describes images.

        Args:
            images: PIL images.
            prompts: What each description begins with, empty or not; not returned.
            max_new_tokens: Length limit of what follows.
            **search: Arguments of `generation.beam_search`; greedy without.
        """
        batch = self.to_device({**self.pixels(images), **self.tokens(prompts)})
        states = self.module.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
        ids = self.for_decoder(batch["input_ids"])
        lengths = batch["attention_mask"].sum(1) - 1  # without [SEP]
        texts = [""] * len(ids)
        # Prompts of one length at a time: positions count from the left, padding would move them.
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            real = torch.ones(states[rows].shape[:2], dtype=torch.long, device=self.device)
            start, seen = ids[rows, :length], states[rows]
            written = self.write(start, seen, real, max_new_tokens=max_new_tokens, **search)
            for row, text in zip(rows.tolist(), written, strict=True):
                texts[row] = text
        return texts
