"""BLIP that answers questions: vision tower, question encoder, answer decoder."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch

from ecoflap.models.adapters._blip import Blip
from ecoflap.models.adapters._generation import Search


class Adapter(Blip):
    """``BlipForQuestionAnswering``."""

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image``, ``prompt`` (the question) and ``target`` (the answer).

        Returns:
            pixel_values [n, 3, height, width], input_ids and attention_mask [n, question tokens];
            decoder_input_ids, decoder_attention_mask and labels [n, answer tokens], labels with
            -100 for padding.
        """
        answers = self.tokens([e["target"] for e in examples])
        answers["input_ids"] = self.for_decoder(answers["input_ids"])
        return {
            **self._inputs([e["image"] for e in examples], [e["prompt"] for e in examples]),
            **{f"decoder_{name}": tensor for name, tensor in answers.items()},
            "labels": self.labels(answers),
        }

    def _inputs(self, images: Sequence, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        questions = self.tokens(prompts)
        questions["input_ids"] = self.for_encoder(questions["input_ids"])
        return {**self.pixels(images), **questions}

    @torch.no_grad()
    def generate(
        self,
        images: Sequence,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        **search: Unpack[Search],
    ) -> list[str]:
        """Answers questions about images.

        Args:
            images: PIL images.
            prompts: One question per image.
            max_new_tokens: Length limit of the answer.
            **search: Arguments of `generation.beam_search`; greedy without.
        """
        batch = self.to_device(self._inputs(images, prompts))
        picture = self.module.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
        question = self.module.text_encoder(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            encoder_hidden_states=picture,
        ).last_hidden_state
        start = torch.full((len(question), 1), self.decoder_start, device=self.device)
        # The model's own generate lets the decoder look at the padding of the questions.
        real = batch["attention_mask"]
        return self.write(start, question, real, max_new_tokens=max_new_tokens, **search)
