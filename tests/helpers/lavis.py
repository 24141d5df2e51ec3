"""Models of transformers under the names that LAVIS 1.0.2 saves them with."""

import torch

from ecoflap.models.model import Model

# Name in LAVIS 1.0.2 for one of transformers: what replaces what, in order.
VISION = {
    "vision_model.embeddings.class_embedding": "visual_encoder.cls_token",
    "vision_model.embeddings.position_embedding": "visual_encoder.pos_embed",
    "vision_model.embeddings.patch_embedding": "visual_encoder.patch_embed.proj",
    "vision_model.encoder.layers": "visual_encoder.blocks",
    "self_attn.projection": "attn.proj",
    "self_attn": "attn",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}
BLIP2 = {
    **VISION,
    "vision_model.post_layernorm": "ln_vision",
    "language_model.": "t5_model.",
    "language_projection": "t5_proj",
    "vision_projection": "vision_proj",
    "text_projection": "text_proj",
    "qformer.layernorm": "Qformer.bert.embeddings.LayerNorm",
    "qformer.encoder": "Qformer.bert.encoder",
    "attention.attention": "attention.self",
}

BLIP = {**VISION, "vision_model.post_layernorm": "visual_encoder.norm"}


def renamed(state, names):
    found = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name.startswith("embeddings."):
            name = f"Qformer.bert.{name}"
        found[name] = tensor.clone()
    return found


def lavis_blip2(module):
    """As LAVIS saves BLIP-2: the biases of queries and values apart, none for keys."""
    state = renamed(module.state_dict(), BLIP2)
    for name in [name for name in state if name.endswith("attn.qkv.bias")]:
        query, _, value = state.pop(name).chunk(3)
        state[name.replace("qkv.bias", "q_bias")] = query
        state[name.replace("qkv.bias", "v_bias")] = value
    return state


def half_removed(module):
    """The weights of a pruned model: half of each matrix of its blocks, and another norm."""
    model = Model(module, None)
    with torch.no_grad():
        for matrix in model.matrices():
            matrix.module.weight.view(-1)[::2] = 0
        module.get_parameter("vision_model.post_layernorm.weight").fill_(0.5)
    return module
