"""What models for image-text retrieval share: a loss of their own, similarities, matches."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch.nn import functional

from ecoflap.data.picture import opened
from ecoflap.errors import ModelError
from ecoflap.models.adapters._blip import Blip
from ecoflap.models.adapters._contrastive import Contrastive
from ecoflap.models.adapters._images import CHUNK, distinct
from ecoflap.models.model import Matrix

Tokens = Mapping[str, torch.Tensor]  # input_ids and attention_mask [n, tokens]


class Matching(Contrastive, Blip):
    """Compares pictures with texts: with embeddings (ITC), and pair by pair (ITM).

    Subclasses compute the parts below; all take and return tensors on the device.
    """

    text_limit: ClassVar[int]  # tokens of a caption, as published

    def image_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns the vision tower's last states, [n, patches, width]."""
        return self.module.vision_model(pixel_values=pixel_values).last_hidden_state

    def match_logits(self, states: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Returns the ITM logits of aligned pictures and texts, [n, 2]; column 1 is a match."""
        raise NotImplementedError

    def embed_states(self, states: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of length 1 of each picture, [n, embeddings, width]."""
        raise NotImplementedError

    def embed_tokens(self, tokens: Tokens) -> torch.Tensor:
        """Returns an embedding of length 1 of each text, [n, width]."""
        raise NotImplementedError

    def pair_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns the tokens of texts that are read together with a picture."""
        return self.tokens(texts, limit=self.text_limit)

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image`` and ``caption``.

        Returns:
            pixel_values [n, 3, height, width], input_ids and attention_mask [n, tokens].
        """
        pixels = self.pixels([e["image"] for e in examples])
        return {**pixels, **self.pair_tokens([e["caption"] for e in examples])}

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the cross-entropy of the ITM logits, a scalar; the classes have no loss.

        Each picture stands once with its own caption, a match, and once with the next caption of
        the batch (the last one with the first), no match.

        Raises:
            ModelError: if the batch has one sample, whose next caption is its own.
        """
        count = len(batch["input_ids"])
        if count < 2:
            raise ModelError(
                "a batch of one picture and its caption",
                allowed="batches of at least two: another caption is what does not match",
                fix="Raise the batch size, so that no batch is left with one sample.",
            )
        states = self.image_states(batch["pixel_values"])
        tokens = {name: _with_next(batch[name]) for name in ("input_ids", "attention_mask")}
        logits = self.match_logits(torch.cat([states, states]), tokens)
        matches = torch.arange(2 * count, device=logits.device) < count
        return functional.cross_entropy(logits.float(), matches.long())

    def valid_tokens(
        self, matrix: Matrix, batch: Mapping[str, torch.Tensor], *, encoder_states: bool = False
    ) -> torch.Tensor | None:
        """Returns which input tokens of a matrix are real, for both halves of the loss's pairs."""
        valid = super().valid_tokens(matrix, batch, encoder_states=encoder_states)
        return None if valid is None else _with_next(valid)

    def encode_images(self, images: Sequence) -> torch.Tensor:
        """Returns embeddings of length 1 of each picture, [n, embeddings, width]."""
        return self.embed_states(self._states(images))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns an embedding of length 1 of each text, [n, width]."""
        return self.embed_tokens(self.to_device(self.tokens(texts, limit=self.text_limit)))

    def compare(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Returns cosines [n_images, n_texts], the largest of a picture's embeddings."""
        # A picture at a time: all embeddings with all texts would be large.
        return torch.stack([(embeddings @ texts.T).amax(0) for embeddings in images])

    @torch.no_grad()
    def match(self, images: Sequence, texts: Sequence[str]) -> list[float]:
        """Returns the ITM logit of a match for each image with the text beside it.

        The published evaluation ranks by this number plus the similarity.
        """
        values: list[float] = []
        for start in range(0, len(texts), CHUNK):
            unique, rows = distinct(images[start : start + CHUNK])
            states = self._states([opened(image) for image in unique])[rows.to(self.device)]
            tokens = self.to_device(self.pair_tokens(texts[start : start + CHUNK]))
            logits = self.match_logits(states, tokens)
            values += logits[:, 1].float().tolist()
        return values

    def _states(self, pictures: Sequence) -> torch.Tensor:
        return self.image_states(self.to_device(self.pixels(pictures))["pixel_values"])


def _with_next(rows: torch.Tensor) -> torch.Tensor:
    """Returns the rows, then the row that follows each of them."""
    return torch.cat([rows, rows.roll(-1, 0)])
