"""BLIP-2 for image-text retrieval: vision tower, and a Q-Former that reads text (never pruned)."""

import torch
from torch.nn import functional

from ecoflap.models.adapters._matching import Matching, Tokens


class Adapter(Matching):
    """``Blip2ForImageTextRetrieval``, an embedding per picture and query."""

    text_limit = 32

    def match_logits(self, states: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Returns the ITM logits, the mean over the queries, which see picture and text."""
        module = self.module
        queries = self._queries(states)
        seen = torch.ones(queries.shape[:2], dtype=torch.long, device=states.device)
        joined = module.qformer(
            query_embeds=module.embeddings(input_ids=tokens["input_ids"], query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([seen, tokens["attention_mask"]], dim=1),
            encoder_hidden_states=states,
        ).last_hidden_state
        joined = joined[:, : queries.shape[1]].to(module.itm_head.weight.dtype)
        return module.itm_head(joined).mean(1)

    def embed_states(self, states: torch.Tensor) -> torch.Tensor:
        """Projects what each query sees, [n, queries, width]."""
        seen = self.module.qformer(
            query_embeds=self._queries(states), encoder_hidden_states=states
        ).last_hidden_state
        projection = self.module.vision_projection
        return functional.normalize(projection(seen.to(projection.weight.dtype)), dim=-1)

    def embed_tokens(self, tokens: Tokens) -> torch.Tensor:
        """Projects the first state of a text alone, [n, width]."""
        states = self.module.qformer(
            query_embeds=self.module.embeddings(input_ids=tokens["input_ids"]),
            query_length=0,
            attention_mask=tokens["attention_mask"],
        ).last_hidden_state
        projection = self.module.text_projection
        return functional.normalize(projection(states[:, 0].to(projection.weight.dtype)), dim=-1)

    def _queries(self, states: torch.Tensor) -> torch.Tensor:
        return self.module.query_tokens.expand(len(states), -1, -1)
