"""Small random models of many architectures, each with a batch that has padding.

What is padding for which matrix is said here by name, apart from the rule of the library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import transformers

from ecoflap.models.adapters import blip2_matching, blip_retrieval, generic
from helpers.noise import randomize

VOCABULARY = 40
IMAGE, VIDEO, VISION_START, VISION_END = 39, 38, 37, 36
TEXT_END = 30  # text tokens are 2 to 29
SIZE = 2  # sequences per batch
WIDTH = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
VISION = {**WIDTH, "num_hidden_layers": 3, "image_size": 16, "patch_size": 8}
TEXT = {
    **WIDTH,
    "num_hidden_layers": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GROUPED = {**TEXT, "num_key_value_heads": 1, "head_dim": 8}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 0,
}
SEQUENCE_TO_SEQUENCE = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}
QFORMER = {
    **WIDTH,
    "num_hidden_layers": 2,
    "encoder_hidden_size": 16,
    "vocab_size": VOCABULARY,
    "cross_attention_frequency": 1,
}


@dataclass(frozen=True)
class Architecture:
    """How to build a model, what it must look like, and how to feed it.

    Attributes:
        build: Makes the Hugging Face model.
        batch: Makes a batch from a generator.
        blocks: Blocks per tower.
        real: End or part of a matrix's name -> entry of the batch that says which tokens it reads
            are real (``labels``: those that are not -100; None: all are). The first match counts;
            other matrices of the language tower take ``attention_mask``, of the vision tower None.
        adapter: Wraps the model.
        pairs: Whether its loss reads each text twice: with its picture, then with the one before.
    """

    build: Callable[[], transformers.PreTrainedModel]
    batch: Callable[[torch.Generator], dict[str, torch.Tensor]]
    blocks: dict[str, int]
    real: dict[str, str | None]
    adapter: type = generic.Adapter
    pairs: bool = False

    def model(self) -> generic.Adapter:
        """Returns the wrapped model with seeded random weights."""
        return self.adapter(randomize(self.build()), None)

    def batches(self, count: int = 2) -> list[dict[str, torch.Tensor]]:
        """Returns seeded batches."""
        return [self.batch(torch.Generator().manual_seed(seed)) for seed in range(count)]


def longer(generator: torch.Generator) -> int:
    """Tokens that a batch has more than the first, so that no two are of one length."""
    return 2 * generator.initial_seed()


def tokens(
    generator: torch.Generator, length: int = 6, images: int = 0, before: Sequence[int] = ()
) -> dict:
    """Text after some image tokens; sequence 0 has two tokens of padding, right and left in turn.

    Args:
        generator: Its seed is the number of the batch.
        length: Text tokens of the first batch.
        images: Image tokens.
        before: Tokens before those.
    """
    left = generator.initial_seed() % 2 == 1
    text = torch.randint(2, TEXT_END, (SIZE, length + longer(generator)), generator=generator)
    start = torch.tensor([[*before, *[IMAGE] * images]] * SIZE, dtype=torch.long)
    ids = torch.cat([start, text], dim=1)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    if left:
        ids[0], mask[0] = ids[0].roll(2), mask[0].roll(2)
    return {"input_ids": ids, "attention_mask": mask}


def targets(generator: torch.Generator, length: int = 5) -> torch.Tensor:
    """Labels of which sequence 1 ends three tokens early."""
    length += longer(generator)
    labels = torch.randint(2, TEXT_END, (SIZE, length), generator=generator)
    labels[1, -3:] = -100
    return labels


def pixels(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Normal noise, [n, 3, 16, 16] by default."""
    return torch.randn(*(shape or (SIZE, 3, 16, 16)), generator=generator)


def own_labels(batch: dict) -> dict:
    """Adds the text's own tokens as labels."""
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {**batch, "labels": labels.masked_fill(labels == IMAGE, -100)}


def text_batch(generator):
    return own_labels(tokens(generator))


def sequence_batch(generator):
    return {**tokens(generator), "labels": targets(generator)}


def pair_batch(generator):
    return {**tokens(generator), "pixel_values": pixels(generator)}


def answer_batch(generator):
    """As many tokens in the question as in the picture, which no mask may mix up."""
    labels = targets(generator)
    real = labels != -100
    filled = labels.masked_fill(~real, 0)
    return {
        **tokens(generator, 5),
        "pixel_values": pixels(generator),
        "decoder_input_ids": filled,
        "decoder_attention_mask": real.long(),
        "labels": labels,
    }


def caption_batch(generator):
    return {**own_labels(tokens(generator, 5)), "pixel_values": pixels(generator)}


def prompt_batch(images: int, *shape: int):
    """Image tokens inside the text, which are real."""

    def batch(generator):
        return {
            **own_labels(tokens(generator, images=images)),
            "pixel_values": pixels(generator, *shape),
        }

    return batch


def blip2_t5_batch(generator):
    return {
        **tokens(generator, images=4),
        "pixel_values": pixels(generator),
        "labels": targets(generator),
    }


def typed_batch(image_type: int, text_type: int):
    """PaliGemma and Gemma 3 are told which tokens are images."""

    def batch(generator):
        inputs = prompt_batch(4)(generator)
        types = torch.where(inputs["input_ids"] == IMAGE, image_type, text_type)
        return {**inputs, "token_type_ids": types}

    return batch


def packed_batch(generator):
    """Qwen: the patches of all pictures in one row, [patches, 3 * 2 * 4 * 4]."""
    inputs = tokens(generator, images=4, before=[VISION_START])
    images = inputs["input_ids"] == IMAGE
    return {
        **own_labels(inputs),
        "pixel_values": pixels(generator, SIZE * 16, 96),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * SIZE),
        "mm_token_type_ids": images.int(),
    }


def speech_batch(generator):
    return {"input_features": pixels(generator, SIZE, 8, 20), "labels": targets(generator)}


def tiles_batch(generator):
    """Mllama: [sequences, pictures, tiles, 3, height, width]; the text attends to the tiles."""
    inputs = own_labels(tokens(generator))
    return {
        **inputs,
        "pixel_values": pixels(generator, SIZE, 1, 4, 3, 16, 16),
        "aspect_ratio_ids": torch.full((SIZE, 1), 6),
        "aspect_ratio_mask": torch.ones(SIZE, 1, 4, dtype=torch.long),
        "cross_attention_mask": inputs["attention_mask"][:, :, None, None].repeat(1, 1, 1, 4),
    }


def blip(name: str, **settings):
    def build():
        text = {**TEXT, "encoder_hidden_size": 16, "projection_dim": 16, "sep_token_id": 1}
        text |= settings
        config = transformers.BlipConfig(
            text_config=text, vision_config=VISION, projection_dim=16, image_text_hidden_size=16
        )
        return getattr(transformers, name)(config)

    return build


def blip2(name: str, text_config: transformers.PreTrainedConfig):
    def build():
        config = transformers.Blip2Config(
            vision_config={**VISION, "initializer_range": 0.02},
            qformer_config={**QFORMER, "use_qformer_text_input": "Retrieval" in name},
            text_config=text_config.to_dict(),
            num_query_tokens=4,
            image_token_index=IMAGE,
            image_text_hidden_size=16,
        )
        return getattr(transformers, name)(config)

    return build


def vision_language(name: str, **settings):
    """A model with sub-configs vision_config and text_config, and an image token."""

    def build():
        config = getattr(transformers, f"{name}Config")(**settings)
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)

    return build


def causal(name: str, **settings):
    def build():
        config = getattr(transformers, f"{name}Config")(**{**GROUPED, **settings})
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return build


def qwen(name: str, **vision):
    return vision_language(
        name,
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 16,
            **vision,
        },
        text_config={
            **GROUPED,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


SMALL_PATCHES = {**VISION, "patch_size": 4}  # 16 patches, four of which make an image token
LLAMA = {**GROUPED, "model_type": "llama"}
SIGLIP = {**VISION, "model_type": "siglip_vision_model"}
OPT = transformers.OPTConfig(
    **{key: value for key, value in TEXT.items() if key != "intermediate_size"},
    ffn_dim=24,
    word_embed_proj_dim=16,
)
BOTH = {"vision": 3, "language": 2}
DECODER = {".encoder_attn.k_proj": "attention_mask", ".encoder_attn.v_proj": "attention_mask"}
T5_DECODER = {
    ".EncDecAttention.k": "attention_mask",
    ".EncDecAttention.v": "attention_mask",
    "decoder.block.": "labels",
}
BLIP_IMAGE = {".crossattention.self.key": None, ".crossattention.self.value": None}

ARCHITECTURES = {
    "t5": Architecture(
        lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
        sequence_batch,
        {"language": 5},
        T5_DECODER,
    ),
    "llama": Architecture(causal("Llama"), text_batch, {"language": 2}, {}),
    "clip": Architecture(
        lambda: transformers.CLIPModel(
            transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
        ),
        pair_batch,
        BOTH,
        {},
    ),
    "blip-vqa": Architecture(
        blip("BlipForQuestionAnswering"),
        answer_batch,
        {"vision": 3, "language": 4},
        {
            **{f"text_encoder.*{end}": None for end in BLIP_IMAGE},
            **{f"text_decoder.*{end}": "attention_mask" for end in BLIP_IMAGE},
            "text_decoder.": "decoder_attention_mask",
        },
    ),
    "blip-captioning": Architecture(
        blip("BlipForConditionalGeneration"), caption_batch, BOTH, BLIP_IMAGE
    ),
    "blip-retrieval": Architecture(
        blip("BlipForImageTextRetrieval"),
        pair_batch,
        BOTH,
        BLIP_IMAGE,
        blip_retrieval.Adapter,
        pairs=True,
    ),
    "blip2-t5": Architecture(
        blip2("Blip2ForConditionalGeneration", transformers.T5Config(**T5)),
        blip2_t5_batch,
        {"vision": 3, "language": 5},
        T5_DECODER,
    ),
    "blip2-opt": Architecture(
        blip2("Blip2ForConditionalGeneration", OPT), prompt_batch(4), BOTH, {}
    ),
    "blip2-matching": Architecture(
        blip2("Blip2ForImageTextRetrieval", OPT),
        pair_batch,
        {"vision": 3},
        {},
        blip2_matching.Adapter,
        pairs=True,
    ),
    "llava": Architecture(
        vision_language(
            "Llava",
            vision_config={**VISION, "model_type": "clip_vision_model"},
            text_config=LLAMA,
            image_token_index=IMAGE,
            vision_feature_layer=-1,
        ),
        prompt_batch(4),
        BOTH,
        {},
    ),
    "qwen2.5-vl": Architecture(
        qwen("Qwen2_5_VL", window_size=16, fullatt_block_indexes=[1]), packed_batch, BOTH, {}
    ),
    "qwen3-vl": Architecture(
        qwen("Qwen3VL", num_position_embeddings=16, deepstack_visual_indexes=[0, 1]),
        packed_batch,
        BOTH,
        {},
    ),
    "idefics3": Architecture(
        vision_language(
            "Idefics3", vision_config=SMALL_PATCHES, text_config=LLAMA, image_token_id=IMAGE
        ),
        prompt_batch(4, SIZE, 1, 3, 16, 16),
        BOTH,
        {},
    ),
    "smolvlm": Architecture(
        vision_language(
            "SmolVLM", vision_config=SMALL_PATCHES, text_config=LLAMA, image_token_id=IMAGE
        ),
        prompt_batch(4, SIZE, 1, 3, 16, 16),
        BOTH,
        {},
    ),
    "paligemma": Architecture(
        vision_language(
            "PaliGemma",
            vision_config=SIGLIP,
            text_config={**GROUPED, "model_type": "gemma"},
            image_token_index=IMAGE,
            projection_dim=16,
        ),
        typed_batch(0, 1),
        BOTH,
        {},
    ),
    # Nothing in the library was written with one of these in mind.
    "gemma3": Architecture(
        vision_language(
            "Gemma3",
            vision_config=SMALL_PATCHES | {"model_type": "siglip_vision_model"},
            text_config={**GROUPED, "sliding_window": 4},
            mm_tokens_per_image=4,
            image_token_index=IMAGE,
        ),
        typed_batch(1, 0),
        BOTH,
        {},
    ),
    "internvl": Architecture(
        vision_language(
            "InternVL",
            vision_config={**SMALL_PATCHES, "image_size": [16, 16], "patch_size": [4, 4]},
            text_config={**TEXT, "num_key_value_heads": 1, "model_type": "qwen2"},
            image_token_id=IMAGE,
            image_seq_length=4,
        ),
        prompt_batch(4),
        BOTH,
        {},
    ),
    "mllama": Architecture(
        vision_language(
            "Mllama",
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "attention_heads": 2,
                "num_hidden_layers": 2,
                "num_global_layers": 2,
                "max_num_tiles": 4,
                "image_size": 16,
                "patch_size": 8,
                "intermediate_layers_indices": [0],
                "vision_output_dim": 32,
            },
            text_config={
                **{key: value for key, value in GROUPED.items() if key != "head_dim"},
                "num_hidden_layers": 3,
                "cross_attention_layers": [1],
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            image_token_index=IMAGE,
        ),
        tiles_batch,
        {"vision": 4, "language": 3},
        {".cross_attn.k_proj": None, ".cross_attn.v_proj": None},
    ),
    "florence2": Architecture(
        vision_language(
            "Florence2",
            vision_config={
                "depths": [1, 2],
                "patch_size": [3, 3],
                "patch_stride": [4, 2],
                "patch_padding": [1, 1],
                "patch_prenorm": [False, True],
                "embed_dim": [8, 16],
                "num_heads": [2, 2],
                "num_groups": [2, 2],
                "window_size": 2,
                "projection_dim": 16,
                "max_position_embeddings": 8,
                "max_temporal_embeddings": 4,
            },
            text_config={**SEQUENCE_TO_SEQUENCE, "model_type": "bart"},
            image_token_id=IMAGE,
        ),
        lambda generator: {
            **tokens(generator, images=5),
            "pixel_values": pixels(generator),
            "labels": targets(generator),
        },
        {"vision": 3, "language": 5},
        {**DECODER, "decoder.layers.": "labels"},
    ),
    "whisper": Architecture(
        lambda: transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(
                **SEQUENCE_TO_SEQUENCE, num_mel_bins=8, max_source_positions=10
            )
        ),
        speech_batch,
        {"language": 5},
        {**DECODER, "decoder.layers.": "labels"},
    ),
    "siglip": Architecture(
        lambda: transformers.SiglipModel(
            transformers.SiglipConfig(
                text_config={**TEXT, "projection_size": 16}, vision_config=VISION
            )
        ),
        pair_batch,
        BOTH,
        {},
    ),
    "deepseek-v3": Architecture(
        causal(
            "DeepseekV3",
            num_key_value_heads=2,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=1,
            kv_lora_rank=8,
            q_lora_rank=8,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            first_k_dense_replace=1,
            moe_intermediate_size=8,
        ),
        text_batch,
        {"language": 2},
        {},
    ),
    "bart": Architecture(
        lambda: transformers.BartForConditionalGeneration(
            transformers.BartConfig(**SEQUENCE_TO_SEQUENCE, max_position_embeddings=32)
        ),
        sequence_batch,
        {"language": 5},
        {**DECODER, "decoder.layers.": "labels"},
    ),
    "gpt-neox": Architecture(causal("GPTNeoX"), text_batch, {"language": 2}, {}),
    "mistral": Architecture(causal("Mistral"), text_batch, {"language": 2}, {}),
    "qwen2": Architecture(causal("Qwen2"), text_batch, {"language": 2}, {}),
    "phi": Architecture(causal("Phi", num_key_value_heads=2), text_batch, {"language": 2}, {}),
}
