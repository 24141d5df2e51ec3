"""Small random models of many classes of transformers, each with two batches of unlike length."""

import inspect
from collections.abc import Iterator

import torch
import transformers
from ecoflap.models import generic
from noise import randomize

VOCABULARY = 40
# Every size that a config of transformers names; a class takes those that it knows.
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "embed_dim", "dim"), 16),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 24),
    **dict.fromkeys(("d_ff", "n_inner", "ffn_hidden_size", "moe_intermediate_size"), 24),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_local_experts", "num_experts"), 2),
    "num_key_value_heads": 1,
    "head_dim": 8,
    "d_kv": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "num_experts_per_tok": 1,
    "type_vocab_size": 2,
}


def build(name: str, settings: dict) -> generic.Adapter:
    """Returns a class of transformers with small random weights.

    Args:
        name: Of the model class.
        settings: What its config needs beside `SIZES`.
    """
    model_class = getattr(transformers, name)
    known = model_class.config_class()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    config = model_class.config_class(**{**sizes, **settings})
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(config).parameters())
    assert size < 2e6, f"{name} has {size} weights: name its sizes"
    torch.manual_seed(0)
    return generic.Adapter(randomize(model_class(config)), None)


def batches(model: generic.Adapter, side: str) -> list[dict[str, torch.Tensor]]:
    """Returns batches of 8 and of 16 tokens with labels, padded on one side.

    Args:
        model: Says by its class which labels it takes.
        side: ``left`` or ``right``.
    """
    return list(_batches(model.module, side))


def _batches(module: torch.nn.Module, side: str) -> Iterator[dict[str, torch.Tensor]]:
    for number, length in enumerate((8, 16)):
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(2, VOCABULARY - 10, (2, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        mask = mask if side == "right" else mask.flip(1)
        batch = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}
        name = type(module).__name__
        if name.endswith("SequenceClassification"):
            batch["labels"] = torch.tensor([0, 1])
        elif module.config.is_encoder_decoder:
            labels = torch.randint(2, VOCABULARY - 10, (2, length - 2), generator=generator)
            batch["labels"] = labels.index_fill(1, torch.tensor([length - 3]), -100)
        else:
            batch["labels"] = ids.masked_fill(mask == 0, -100)
        taken = inspect.signature(type(module).forward).parameters
        yield {key: value for key, value in batch.items() if key in taken}
