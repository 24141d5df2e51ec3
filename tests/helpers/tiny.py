"""Small random models of the real classes, with batches, for tests without a network."""

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

from ecoflap.models.adapters import blip2, causal_lm, clip
from helpers.noise import randomize

VOCABULARY = 40
QUERIES = 4
IMAGE_TOKEN = VOCABULARY - 1


def blip2_model() -> blip2.Adapter:
    """BLIP-2 with a 3-block ViT, a Q-Former and a T5 of 2 + 2 blocks."""
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            encoder_hidden_size=16,
            vocab_size=VOCABULARY,
        ).to_dict(),
        text_config=T5Config(
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            vocab_size=VOCABULARY,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        ).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_TOKEN,
    )
    return blip2.Adapter(randomize(Blip2ForConditionalGeneration(config), 0.4), None)


def clip_model() -> clip.Adapter:
    """CLIP with towers of 2 blocks."""
    shared = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            **shared, vocab_size=VOCABULARY, max_position_embeddings=12, eos_token_id=1
        ).to_dict(),
        vision_config=CLIPVisionConfig(**shared, image_size=16, patch_size=8).to_dict(),
        projection_dim=16,
    )
    return clip.Adapter(randomize(CLIPModel(config)), None)


def llama_model() -> causal_lm.Adapter:
    """Llama with 3 blocks."""
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
    )
    return causal_lm.Adapter(randomize(LlamaForCausalLM(config)), None)


def batches(model, count: int = 2, size: int = 3) -> list[dict[str, torch.Tensor]]:
    """Random batches with padding, of the form that the model's loss takes."""
    return [_batch(model, size, torch.Generator().manual_seed(seed)) for seed in range(count)]


def _batch(model, size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    def tokens(length: int) -> torch.Tensor:
        return torch.randint(2, VOCABULARY - 1, (size, length), generator=generator)

    def image() -> torch.Tensor:
        return torch.randn(size, 3, 16, 16, generator=generator)

    if isinstance(model, causal_lm.Adapter):
        ids = tokens(7)
        return {"input_ids": ids, "labels": ids.clone()}
    mask = torch.ones(size, 6, dtype=torch.long)
    mask[0, 4:] = 0
    if isinstance(model, clip.Adapter):
        ids = tokens(6)
        ids[:, 3] = 1
        return {"pixel_values": image(), "input_ids": ids, "attention_mask": mask}
    placeholders = torch.full((size, QUERIES), IMAGE_TOKEN)
    labels = tokens(5)
    labels[1, 2:] = -100
    return {
        "pixel_values": image(),
        "input_ids": torch.cat([placeholders, tokens(6)], dim=1),
        "attention_mask": torch.cat([torch.ones_like(placeholders), mask], dim=1),
        "labels": labels,
    }


MODELS = {"blip2": blip2_model, "clip": clip_model, "llama": llama_model}


def hooked_inputs(model, batches):
    """Inputs of every matrix in plain forwards, padding removed."""
    seen = {matrix.name: [] for matrix in model.matrices()}
    current = {}

    def hook(matrix):
        def take(_, args):
            cross = matrix.name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
            valid = model.valid_tokens(matrix, current, encoder_states=cross)
            tokens = args[0] if valid is None else args[0][valid]
            seen[matrix.name].append(tokens.detach().reshape(-1, tokens.shape[-1]))

        return matrix.module.register_forward_pre_hook(take)

    handles = [hook(matrix) for matrix in model.matrices()]
    with torch.no_grad():
        for batch in batches:
            current = batch
            model.loss(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}
