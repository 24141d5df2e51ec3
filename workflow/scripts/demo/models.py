"""The two demo models with random weights, and their processors."""

from typing import Any, cast

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    T5Config,
    T5ForConditionalGeneration,
)

from demo.tokenizer import IMAGE, build_tokenizer
from ecoflap.data.builtin._scene_pictures import PICTURE_SIZE

WIDTH = 128
N_HEADS = 4
N_LANGUAGE_HEADS = 8  # half of them for near words, half for any
PATCH_SIZE = 8
N_QUERIES = 12
MAX_TOKENS = 48

_SIZE = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
_PIXELS: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def build_blip2() -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """Make an untrained BLIP-2 of 3.2 M parameters, and its processor."""
    tokenizer = build_tokenizer(MAX_TOKENS)
    special: dict[str, Any] = {
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=6,
            num_attention_heads=N_HEADS,
            image_size=PICTURE_SIZE,
            patch_size=PATCH_SIZE,
            initializer_range=0.02,  # the default, 1e-10, is for loading trained weights
        ),
        qformer_config=Blip2QFormerConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=N_HEADS,
            intermediate_size=4 * WIDTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            cross_attention_frequency=1,
        ),
        text_config=T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=WIDTH // N_LANGUAGE_HEADS,
            d_ff=2 * WIDTH,
            num_layers=4,
            num_decoder_layers=4,
            num_heads=N_LANGUAGE_HEADS,
            dropout_rate=0.0,
            feed_forward_proj="gated-silu",
            **special,
        ),
        num_query_tokens=N_QUERIES,
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids(IMAGE)),
    )
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        # The library's own values are for loading: equal queries never become different, and
        # an output layer as large as T5's starts far from a uniform guess.
        model.query_tokens.normal_(std=0.02)
        model.language_model.lm_head.weight.normal_(std=0.02)
        model.language_projection.weight.normal_(std=WIDTH**-0.5)
    _favour_near_words(model.language_model)
    images = BlipImageProcessor(size=_SIZE, **_PIXELS)
    return model, Blip2Processor(images, tokenizer, num_query_tokens=N_QUERIES)


@torch.no_grad()
def _favour_near_words(model: T5ForConditionalGeneration) -> None:
    """Start half of the heads with a bias towards near words on one side.

    All layers of T5 share one small table of position biases. It starts near zero and moves by
    about the learning rate in a step, so to tell "red" of the first name from "red" of the second
    would take thousands of steps.
    """
    stacks: tuple[Any, Any] = model.encoder, model.decoder
    encoder, decoder = (
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
        for stack in stacks
    )  # [n_buckets, n_heads]
    n_sided = len(encoder) // 2  # the encoder's first half of buckets is for words before
    distance = torch.arange(n_sided)
    for number, head in enumerate(range(N_LANGUAGE_HEADS // 2, N_LANGUAGE_HEADS)):
        near = -2.0 / (1 + number // 2) * distance
        far = torch.full_like(near, -8.0)
        encoder[:, head] = torch.cat([near, far] if number % 2 == 0 else [far, near])
        decoder[:, head] = -2.0 / (1 + number) * torch.arange(len(decoder))


def build_clip() -> tuple[CLIPModel, CLIPProcessor]:
    """Make an untrained CLIP of 2.1 M parameters, and its processor."""
    tokenizer = build_tokenizer(MAX_TOKENS)
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": N_HEADS,
    }
    config = CLIPConfig(
        vision_config={
            **shape,
            "num_hidden_layers": 6,
            "image_size": PICTURE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            **shape,
            "num_hidden_layers": 4,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_TOKENS,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        projection_dim=WIDTH,
    )
    images = CLIPImageProcessor(size=_SIZE, do_center_crop=False, **_PIXELS)
    return CLIPModel(config), CLIPProcessor(images, tokenizer)
