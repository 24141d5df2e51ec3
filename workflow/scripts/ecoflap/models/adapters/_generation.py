"""How adapters ask transformers to generate: as the task says, whatever a checkpoint would like.

A checkpoint's ``generation_config.json`` may change what greedy means (penalties, lengths,
sampling). Of it only the ``KEPT`` count: which tokens begin, end and fill a text, and which ones
its architecture forces or forbids.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

log = logging.getLogger(__name__)
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
ADDED = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
)
KEPT = TOKENS + ADDED
NO_MATTER = ("use_cache", "transformers_version", "_from_model_config", "cache_implementation")


class Search(TypedDict, total=False):
    """Arguments of `beam_search`."""

    beams: int
    length_penalty: float
    min_new_tokens: int


def beam_search(
    beams: int = 1, length_penalty: float = 1.0, min_new_tokens: int = 0
) -> dict[str, Any]:
    """Returns the arguments of ``generate`` for a search.

    Args:
        beams: Width of the beam search; 1 is greedy.
        length_penalty: Exponent of the length by which a beam's score is divided; below 0 short
            texts win. Left out of a greedy search, where transformers would warn of it.
        min_new_tokens: No text ends before so many; left out where it is 0.
    """
    wide = {"length_penalty": length_penalty} if beams > 1 else {}
    least = {"min_new_tokens": min_new_tokens} if min_new_tokens else {}
    return {"num_beams": beams, **wide, **least}


def generate(
    module: Any,
    inputs: Mapping[str, torch.Tensor],
    *,
    max_new_tokens: int,
    tokens: Mapping[str, int] | None = None,
    **search: Unpack[Search],
) -> torch.Tensor:
    """Generates without sampling.

    Args:
        module: A model of transformers.
        inputs: Arguments of its ``generate``.
        max_new_tokens: Length limit of what is generated.
        tokens: Of the ``KEPT``, those that are other than the checkpoint says.
        **search: Arguments of `beam_search`; greedy without.

    Returns:
        What ``generate`` returns, int64 [n, tokens]. Where a model's logits are no numbers the text
        ends.
    """
    broken = _EndsWithoutNumbers()
    with _as_told(module, tokens or {}) as used:
        broken.ends = torch.tensor(used.eos_token_id or [], dtype=torch.long).flatten()
        found = module.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            logits_processor=LogitsProcessorList([broken]),
            **beam_search(**search),
        )
    if broken.met:
        log.warning("the logits of some of %d texts are no numbers: they end there", len(found))
    return found


def told(
    module: nn.Module,
    *,
    max_new_tokens: int,
    tokens: Mapping[str, int] | None = None,
    **search: Unpack[Search],
) -> dict[str, Any]:
    """Returns the settings that `generate` uses with the same arguments.

    Returns:
        max_new_tokens, do_sample, those of `beam_search`; ``tokens``, and ``added``: what the
        checkpoint forces or forbids; ``not_used``: its settings that do not count.
    """
    wanted = _configs(module)[-1][1].to_dict()
    kept = _kept(wanted, tokens or {})
    return {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        **beam_search(**search),
        "tokens": {name: value for name, value in kept.items() if name in TOKENS},
        "added": {name: value for name, value in kept.items() if name in ADDED},
        "not_used": {
            name: value
            for name, value in wanted.items()
            if name not in (*KEPT, *NO_MATTER) and value is not None and value is not False
        },
    }


def _kept(wanted: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    found = {name: tokens.get(name, wanted.get(name)) for name in KEPT}
    return {name: value for name, value in found.items() if value not in (None, [])}


def _configs(module: nn.Module) -> list[tuple[Any, GenerationConfig]]:
    """Returns the parts that can generate; the last is the one that does (BLIP-2 asks a part)."""
    parts = [(part, getattr(part, "generation_config", None)) for part in module.modules()]
    return [(part, config) for part, config in parts if config is not None]


@contextmanager
def _as_told(module: nn.Module, tokens: Mapping[str, int]) -> Iterator[GenerationConfig]:
    """Lets a model forget what its checkpoint says of generation, but for the ``KEPT``."""
    configs = _configs(module)
    try:
        for part, config in configs:
            part.generation_config = GenerationConfig(**_kept(config.to_dict(), tokens))
        yield configs[-1][0].generation_config
    finally:
        for part, config in configs:
            part.generation_config = config


class _EndsWithoutNumbers(LogitsProcessor):
    """Ends each text at a step in which a logit is no number; the highest would be arbitrary."""

    def __init__(self):
        self.ends = torch.tensor([], dtype=torch.long)
        self.met = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """Returns scores [n, vocabulary] that are numbers."""
        broken = scores.isnan().any(-1, keepdim=True)
        if not len(self.ends) or not broken.any():
            return scores
        self.met = True
        ended = torch.full_like(scores, float("-inf"))
        ended[:, self.ends.to(scores.device)] = 0
        return torch.where(broken, ended, scores)
