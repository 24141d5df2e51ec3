"""Models with random weights, and batches for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

from ecoflap.models.adapters import blip2, causal_lm
from ecoflap.models.model import Matrix, Model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True)
class Blip2Size:
    """The numbers that make a BLIP-2: keyword arguments of the configs of its parts."""

    vision: dict[str, Any]
    qformer: dict[str, Any]
    text: dict[str, Any]
    queries: int


# ViT-g and FlanT5-XL; every number that is not here is the config's default.
REAL = Blip2Size(
    vision={
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    qformer={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    text={
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
        "vocab_size": 32128,
    },
    queries=32,
)
# All blocks and tokens of the real size, widths and vocabulary divided by about 11.
REDUCED = Blip2Size(
    vision=REAL.vision | {"hidden_size": 128, "intermediate_size": 560, "num_attention_heads": 4},
    qformer={
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
    },
    text=REAL.text | {"d_model": 192, "d_kv": 32, "d_ff": 480, "num_heads": 6, "vocab_size": 2944},
    queries=32,
)
TINY = Blip2Size(
    vision={
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    qformer={
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    text={
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 64,
    },
    queries=4,
)


def blip2_config(size: Blip2Size) -> Blip2Config:
    """Returns the config of a BLIP-2 with a T5."""
    text = {
        **size.text,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }
    return Blip2Config(
        vision_config=Blip2VisionConfig(**size.vision).to_dict(),
        qformer_config=Blip2QFormerConfig(
            **size.qformer, encoder_hidden_size=size.vision["hidden_size"]
        ).to_dict(),
        text_config=T5Config(**text).to_dict(),
        num_query_tokens=size.queries,
        image_token_index=size.text["vocab_size"] - 1,
    )


def build_blip2(
    size: Blip2Size, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> blip2.Adapter:
    """Makes a BLIP-2 with a T5, directly in its dtype on its device."""
    module = _build(Blip2ForConditionalGeneration, blip2_config(size), dtype, device)
    return blip2.Adapter(module, None)


def build_llama(config: LlamaConfig, dtype: torch.dtype) -> causal_lm.Adapter:
    """Makes a Llama on the CPU."""
    return causal_lm.Adapter(_build(LlamaForCausalLM, config, dtype, "cpu"), None)


def _build(kind: type, config: Any, dtype: torch.dtype, device: str) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = kind(config)
    finally:
        torch.set_default_dtype(before)
    randomize(module)
    return module


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> None:
    """Fills a model, so that activations keep their size; the same seed, the same weights.

    The classes' own values are for loading: BLIP-2's vision tower starts at 1e-10, its queries
    at 0.
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)


def image_captions(size: Blip2Size, count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Makes samples of a random picture, and a prompt and a target of 4 to 12 tokens.

    Returns:
        Batches of one without padding: pixel_values [1, 3, height, width], input_ids,
        attention_mask and labels [1, n_tokens].
    """
    generator = torch.Generator().manual_seed(seed)
    image, vocabulary = size.vision["image_size"], size.text["vocab_size"]

    def text() -> torch.Tensor:
        length = int(torch.randint(4, 13, (), generator=generator))
        return torch.randint(2, vocabulary - 1, (1, length), generator=generator)

    samples = []
    for _ in range(count):
        tokens = torch.cat([torch.full((1, size.queries), vocabulary - 1), text()], dim=1)
        samples.append(
            {
                "pixel_values": torch.randn(1, 3, image, image, generator=generator),
                "input_ids": tokens,
                "attention_mask": torch.ones_like(tokens),
                "labels": text(),
            }
        )
    return samples


def collate(samples: Sequence[dict], batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Joins samples of one into batches with padding on the right."""
    padding = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}
    batches = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        batch = {"pixel_values": torch.cat([sample["pixel_values"] for sample in part])}
        for name, value in padding.items():
            rows = [sample[name][0] for sample in part]
            batch[name] = pad_sequence(rows, batch_first=True, padding_value=value)
        batches.append(batch)
    return batches


def token_windows(
    config: "PreTrainedConfig", batches: int, batch_size: int, length: int
) -> list[dict[str, torch.Tensor]]:
    """Makes batches of random tokens: input_ids and labels [batch_size, length]."""
    generator = torch.Generator().manual_seed(0)
    shape = (batches, batch_size, length)
    tokens = torch.randint(config.vocab_size, shape, generator=generator)
    return [{"input_ids": part, "labels": part.clone()} for part in tokens]


def spread(model: Model, count: int) -> dict[str, torch.Tensor]:
    """Returns the weights of at least that many matrices, evenly spread over the model."""
    matrices = list(model.matrices())
    step = max(1, len(matrices) // count)
    return {matrix.name: matrix.module.weight for matrix in matrices[::step]}


@contextmanager
def only(model: Model, names: Sequence[str]) -> Iterator[None]:
    """Leaves only these matrices to score, so that a sample of them can be measured."""

    def chosen(matrices: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
        return tuple(matrix for matrix in matrices if matrix.name in names)

    whole = model.blocks
    try:
        model.blocks = [replace(block, matrices=chosen(block.matrices)) for block in whole]
        yield
    finally:
        model.blocks = whole


def towers(model: Model) -> list[tuple[list[nn.Module], bool]]:
    """Returns each list of layers, and whether Wanda compares within rows there."""
    prunable = [block for block in model.blocks if block.matrices]
    return [
        ([block.module for block in blocks], model.group_of(blocks[0].matrices[0].tower) == "row")
        for _, group in groupby(prunable, key=lambda block: block.name.rpartition(".")[0])
        for blocks in [list(group)]
    ]
