"""What the adapters of BLIP share: pictures, texts, and the special tokens of the published models.

LAVIS, which trained them, replaces the first token of each text ([CLS]) by [ENC] where the text
encoder looks at a picture, and by [DEC] where the decoder starts. The published vocabularies have
both, one after the other, behind what the tokenizer's files name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import nn

from ecoflap.models.adapters import _generation, generic
from ecoflap.models.adapters._images import distinct
from ecoflap.models.adapters._texts import check_length
from ecoflap.models.model import IGNORED, BlockNames

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Blip(generic.Adapter):
    """Prepares pictures and texts, and lets the decoder see no padding of a question."""

    module: Any  # its parts have names of their own

    def __init__(self, module: "PreTrainedModel", processor: Any, blocks: BlockNames | None = None):
        """Finds the blocks, and repairs the masks of cross-attentions.

        Args:
            module: A loaded BLIP.
            processor: Its processor, None if it has none.
            blocks: As in `ecoflap.load`.
        """
        super().__init__(module, processor, blocks)
        for name, part in module.named_modules():
            if name.endswith(".crossattention.self"):
                part.register_forward_pre_hook(_pass_mask, with_kwargs=True)

    def pixels(self, images: Sequence) -> dict[str, torch.Tensor]:
        """Prepares each picture once: pixel_values [n, 3, height, width]."""
        unique, rows = distinct(images)
        made = self.needed_processor().image_processor(unique, return_tensors="pt")
        return {"pixel_values": made["pixel_values"][rows]}

    def tokens(self, texts: Sequence[str], *, limit: int | None = None) -> dict[str, torch.Tensor]:
        """Returns input_ids and attention_mask [n, tokens], cut to a limit if there is one."""
        made = self.needed_processor().tokenizer(
            list(texts),
            padding=True,
            truncation=limit is not None,
            max_length=limit,
            return_tensors="pt",
        )
        if limit is None:
            check_length(made, self.module.config)
        return {name: made[name] for name in ("input_ids", "attention_mask")}

    @property
    def decoder_start(self) -> int:
        """The token [DEC] that a decoder starts with."""
        return self.module.config.text_config.bos_token_id

    def for_encoder(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Puts [ENC] first, if this vocabulary has it."""
        published = self.decoder_start >= len(self.processor.tokenizer)
        there = self.decoder_start + 1 < self.module.config.text_config.vocab_size
        return _begun(input_ids, self.decoder_start + 1) if published and there else input_ids

    def for_decoder(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Puts [DEC] first."""
        return _begun(input_ids, self.decoder_start)

    def labels(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the tokens, -100 for padding."""
        return tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, IGNORED)

    def write(
        self,
        start: torch.Tensor,
        states: torch.Tensor,
        real: torch.Tensor,
        *,
        max_new_tokens: int,
        **search: Unpack[_generation.Search],
    ) -> list[str]:
        """Continues texts with the text decoder; returns what is new.

        Args:
            start: Tokens to start with, int64 [n, tokens], none of them padding.
            states: What the decoder attends to, [n, length, width].
            real: 1 where states are not padding, int64 [n, length].
            max_new_tokens: Length limit of what is new.
            **search: Arguments of `generation.beam_search`; greedy without.
        """
        inputs = {
            "input_ids": start,
            "attention_mask": torch.ones_like(start),
            "encoder_hidden_states": states,
            "encoder_attention_mask": real,
        }
        decoder = self.module.text_decoder
        tokens = _generation.generate(
            decoder, inputs, max_new_tokens=max_new_tokens, tokens=self._ends(), **search
        )
        new = tokens[:, start.shape[1] :]
        texts = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def decoding(
        self, *, max_new_tokens: int, **search: Unpack[_generation.Search]
    ) -> dict[str, Any]:
        """Returns the settings of `generate`, for the same arguments but images and prompts."""
        decoder = self.module.text_decoder
        return _generation.told(
            decoder, max_new_tokens=max_new_tokens, tokens=self._ends(), **search
        )

    def _ends(self) -> dict[str, int]:
        """Returns the tokens that end and fill a text."""
        text = self.module.config.text_config
        return {"eos_token_id": text.sep_token_id, "pad_token_id": text.pad_token_id}


def _pass_mask(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Gives a mask under the name that is read: transformers 5.17 to 5.23 use another."""
    return args, {"encoder_attention_mask": kwargs.get("attention_mask"), **kwargs}


def _begun(input_ids: torch.Tensor, token: int) -> torch.Tensor:
    changed = input_ids.clone()
    changed[:, 0] = token
    return changed
