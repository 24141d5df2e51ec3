"""Any decoder-only language model of transformers."""

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecoflap.errors import DataError
from ecoflap.models.adapters._texts import positions
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import BlockNames, Model


class Adapter(Model):
    """A causal language model, calibrated and evaluated on windows of text."""

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Loads the model and its tokenizer from a folder or the hub."""
        module = loader.module(AutoModelForCausalLM, blocks)
        return cls(module, loader.processor(AutoTokenizer), blocks)

    def windows(self, text: str, length: int, special_tokens: bool = False) -> torch.Tensor:
        """Cuts a text into windows of tokens without overlap; the rest is dropped.

        Args:
            text: The whole text.
            length: Tokens per window.
            special_tokens: Whether what the tokenizer puts before and after a text counts.

        Returns:
            int64 [n_windows, length].

        Raises:
            DataError: if a window is longer than what the model was made for.
        """
        limit = positions(self.module.config)
        if length > limit:
            raise DataError(
                f"windows of {length} tokens", allowed=f"at most {limit}", fix="Lower it."
            )
        encoded = self.processor(text, add_special_tokens=special_tokens, verbose=False)
        tokens = encoded["input_ids"]
        count = len(tokens) // length
        return torch.tensor(tokens[: count * length]).reshape(count, length)

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Stacks examples with ``tokens`` [length] into input_ids and labels [n, length]."""
        tokens = torch.stack([e["tokens"] for e in examples])
        return {"input_ids": tokens, "labels": tokens.clone()}

    @torch.no_grad()
    def negative_log_likelihood(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the summed loss of each window's tokens after the first, float64 [n].

        Args:
            tokens: int64 [n, length].
        """
        tokens = tokens.to(self.device)
        logits = self.module(input_ids=tokens).logits
        # Window by window: the loss over [n, vocabulary, length] at once takes seven times as long.
        losses = [
            functional.cross_entropy(row[:-1].float(), window[1:], reduction="none").double().sum()
            for row, window in zip(logits, tokens, strict=True)
        ]
        return torch.stack(losses).cpu()
