"""BLIP for image-text retrieval: vision tower and text encoder."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from ecoflap.models.adapters._matching import Matching, Tokens


class Adapter(Matching):
    """``BlipForImageTextRetrieval``, one embedding per picture."""

    text_limit = 35

    def pair_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Starts texts that are read together with a picture as published."""
        tokens = super().pair_tokens(texts)
        return {**tokens, "input_ids": self.for_encoder(tokens["input_ids"])}

    def match_logits(self, states: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Returns the ITM logits from the first token of a text that looks at its picture."""
        joined = self.module.text_encoder(**tokens, encoder_hidden_states=states).last_hidden_state
        return self.module.itm_head(joined[:, 0])

    def embed_states(self, states: torch.Tensor) -> torch.Tensor:
        """Projects the first state, [n, 1, width]."""
        return functional.normalize(self.module.vision_proj(states[:, :1]), dim=-1)

    def embed_tokens(self, tokens: Tokens) -> torch.Tensor:
        """Projects the first state of a text alone, [n, width]."""
        states = self.module.text_encoder(**tokens).last_hidden_state
        return functional.normalize(self.module.text_proj(states[:, 0]), dim=-1)
