"""Batches of inputs, and processors that fit their model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ecoflap.errors import ModelError
from ecoflap.models.adapters._texts import positions

if TYPE_CHECKING:
    from ecoflap.models.model import Model


def settle_queries(model: "Model") -> None:
    """Has the processor put as many image tokens into a text as the Q-Former has queries.

    Processors saved before transformers 4.45 do not say how many, and configs not which token it
    is: the model would run without its pictures. Both are taken from where they are known.

    Args:
        model: Any model; those without queries are left alone.

    Raises:
        ModelError: if processor and config contradict each other.
    """
    config, processor = getattr(model.module, "config", None), model.processor
    queries = getattr(config, "num_query_tokens", None)
    if queries is None or not hasattr(processor, "num_query_tokens"):
        return
    told = processor.num_query_tokens
    if told not in (None, queries):
        raise ModelError(
            f"num_query_tokens is {told} in the processor and {queries} in the model",
            allowed="as many image tokens in a text as the model has queries",
            fix=f"Write {queries} into processor_config.json, or save the right processor.",
        )
    processor.num_query_tokens = queries
    _settle_image_token(model)


def _settle_image_token(model: "Model") -> None:
    config: Any = model.module.config
    processor = model.processor
    if not hasattr(config, "image_token_index"):
        return
    text = getattr(processor.image_token, "content", processor.image_token)
    token, known = processor.tokenizer.convert_tokens_to_ids(text), config.image_token_index
    embeddings: Any = model.module.get_input_embeddings()
    rows = embeddings.num_embeddings
    if known not in (None, token) or token >= rows:
        seen = f"{known} in the model" if known is not None else f"there are {rows} embeddings"
        raise ModelError(
            f"the image token {text} is {token} in the tokenizer, {seen}",
            allowed="one number for both, below the number of embeddings",
            fix="Write the tokenizer's number as image_token_index into config.json, or save the "
            "tokenizer that belongs to the model.",
        )
    config.image_token_index = token


def n_samples(batch: Mapping[str, torch.Tensor]) -> int:
    """Returns the samples of a batch; a processor may join the patches of all its pictures."""
    texts = [tensor for name, tensor in batch.items() if name in ("input_ids", "labels")]
    return len((texts or list(batch.values()))[0])


def few_samples(batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Returns a few samples of a batch that a model treats like all of them.

    The first two, since a loss may compare samples with each other, and of each mask the first
    sample with padding.

    Args:
        batch: One batch.

    Returns:
        The batch itself where a tensor has not one entry for each sample.
    """
    samples = n_samples(batch)
    whole = any(t.dim() == 0 or len(t) != samples for t in batch.values())
    # Positions may be [3, samples, tokens].
    if whole or any(t.dim() > 2 and not t.is_floating_point() for t in batch.values()):
        return batch
    chosen = {0, 1}
    for name, tensor in batch.items():
        if tensor.dim() == 2 and ("mask" in name or name == "labels"):
            padded = (tensor < 0 if name == "labels" else tensor == 0).any(dim=1)
            chosen.update(padded.nonzero()[:1].flatten().tolist())
    rows = sorted(chosen & set(range(samples)))
    return {name: tensor[rows] for name, tensor in batch.items()}


def check_rope(model: "Model", batches: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Refuses texts for which a model's positions depend on the texts that it saw before.

    "Dynamic NTK" stretches the positions to the longest text so far.

    Args:
        model: The model.
        batches: Batches.

    Raises:
        ModelError: if batches of unlike length reach beyond the positions of such a model.
    """
    config = getattr(model.module, "config", None)
    if config is None or not _is_dynamic(config.to_dict()):
        return
    lengths = {batch["input_ids"].shape[1] for batch in batches if "input_ids" in batch}
    limit = positions(config)
    if len(lengths) > 1 and max(lengths) > limit:
        raise ModelError(
            f"texts of {min(lengths)} to {max(lengths)} tokens, of which the longest changes "
            "how the model sees the others (dynamic rope)",
            allowed=f"texts of at most {limit} tokens, or all of one length",
            fix="Cut the texts, or pad them to one length.",
        )


def _is_dynamic(config: object) -> bool:
    """Tells whether a config, at any depth, stretches positions as texts come."""
    if not isinstance(config, Mapping):
        return False
    own = any(config.get(key) == "dynamic" for key in ("rope_type", "type"))
    return own or any(map(_is_dynamic, config.values()))
