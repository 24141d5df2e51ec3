"""Small random models of many classes of transformers, each with two batches of unlike length."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from ecoflap.models.adapters import generic
from helpers.noise import randomize

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


CROSS_ATTENTION = ("EncDecAttention.", "encoder_attn.", "cross_attention.", "cross_attn.")


@dataclass(frozen=True)
class Case:
    """A class, and what is expected of it.

    Attributes:
        name: Of the model class.
        settings: What its config needs beside `SIZES`; None takes one of them out.
        refused: Part of the name of the matrix for which the layer-wise pass is refused; None if
            its statistics are those of plain forwards.
        padded: Whether the batches have padding.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None
    padded: bool = True

    def __str__(self) -> str:
        """Names the case in a test."""
        return "-".join([self.name, *self.settings, *([] if self.padded else ["unpadded"])])


CHUNKS = {"chunk_size_feed_forward": 8}
SHARED_KEY = {"relative_attention": True, "share_att_key": True, "pos_att_type": ["c2p", "p2c"]}
SUMMARIES = {
    "encoder_attention_type": "transient-global",
    "decoder_start_token_id": 0,
    "local_radius": 4,
    "global_block_size": 4,
}
SHARED_STATES = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
ALTERNATE = {
    "laurel_rank": 4,
    "intermediate_size": 24,
    "activation_sparsity_pattern": [0.0] * 4,
}
START = {"decoder_start_token_id": 0}
PLAIN = (
    "ApertusForCausalLM",
    "ArceeForCausalLM",
    "AriaTextForCausalLM",
    "BertForMaskedLM",
    "BertGenerationDecoder",
    "BertForSequenceClassification",
    "BioGptForCausalLM",
    "BitNetForCausalLM",
    "BloomForCausalLM",
    "CohereForCausalLM",
    "Cohere2ForCausalLM",
    "CTRLLMHeadModel",
    "ElectraForMaskedLM",
    "Ernie4_5ForCausalLM",
    "EuroBertForMaskedLM",
    "Exaone4ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GlmForCausalLM",
    "Glm4ForCausalLM",
    "GPTNeoXForCausalLM",
    "GPTBigCodeForCausalLM",
    "GraniteForCausalLM",
    "HeliumForCausalLM",
    "LlamaForSequenceClassification",
    "MegatronBertForMaskedLM",
    "MinistralForCausalLM",
    "MixtralForCausalLM",
    "ModernBertForMaskedLM",
    "MPNetForMaskedLM",
    "NemotronForCausalLM",
    "NomicBertForMaskedLM",
    "OlmoForCausalLM",
    "Olmo2ForCausalLM",
    "OPTForCausalLM",
    "PersimmonForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "RecurrentGemmaForCausalLM",
    "RemBertForMaskedLM",
    "RobertaForMaskedLM",
    "RoFormerForMaskedLM",
    "RwkvForCausalLM",
    "SeedOssForCausalLM",
    "SmolLM3ForCausalLM",
    "StableLmForCausalLM",
    "Starcoder2ForCausalLM",
    "XGLMForCausalLM",
    "XLMRobertaForMaskedLM",
    "M2M100ForConditionalGeneration",
    "MarianMTModel",
    "MBartForConditionalGeneration",
    "PegasusForConditionalGeneration",
    "MT5ForConditionalGeneration",
)
CASES = [
    *map(Case, PLAIN),
    Case("T5ForConditionalGeneration", START),
    Case("SwitchTransformersForConditionalGeneration", START),
    Case("Mamba2ForCausalLM", {"num_heads": 4, "n_groups": 1}),
    # A matrix that its block calls more than once.
    Case("BertForMaskedLM", CHUNKS, padded=False),
    Case("BertForMaskedLM", CHUNKS, refused="intermediate.dense"),
    Case("RobertaForMaskedLM", CHUNKS, padded=False),
    Case("DebertaForMaskedLM", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    Case("DebertaV2ForMaskedLM", SHARED_KEY, padded=False),
    Case("DebertaV2ForMaskedLM", SHARED_KEY, refused="attention.self.query_proj"),
    Case("LongT5ForConditionalGeneration", SUMMARIES, refused="TransientGlobalSelfAttention.k"),
    Case("LongT5ForConditionalGeneration", SUMMARIES, padded=False),
    Case("ProphetNetForConditionalGeneration", {"num_hidden_layers": None}, refused="query_proj"),
    # A weight that is used without a call of its module.
    Case("MambaForCausalLM", refused="mixer.dt_proj"),
    Case("FalconMambaForCausalLM", refused="mixer.dt_proj"),
    Case("JambaForCausalLM", refused="mamba.dt_proj"),
    # What earlier blocks leave for later ones, in an argument or beside it.
    Case("Gemma4ForCausalLM", {**SHARED_STATES, "global_head_dim": 8}),
    Case("Gemma3nForCausalLM", {**SHARED_STATES, **ALTERNATE}),
    Case("MixtralForCausalLM", {"output_router_logits": True}),
    Case("Qwen2MoeForCausalLM", {"output_router_logits": True}),
    # Inputs whose rows are no tokens of the padding mask.
    Case("LongformerForMaskedLM", refused="attention.self.query"),
    Case("CpmAntForCausalLM", refused="self_attention.project_q"),
]


def build(case: Case) -> generic.Adapter:
    """Returns a class of transformers with small random weights."""
    model_class = getattr(transformers, case.name)
    known = model_class.config_class().to_dict()
    sizes = {key: value for key, value in SIZES.items() if key in known} | case.settings
    config = model_class.config_class(**{k: v for k, v in sizes.items() if v is not None})
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(config).parameters())
    assert size < 2e6, f"{case} has {size} weights: name its sizes"
    torch.manual_seed(0)
    return generic.Adapter(randomize(model_class(config)), None)


def batches(case: Case, model: generic.Adapter) -> list[dict[str, torch.Tensor]]:
    """Returns batches of 8 tokens, padded right, and of 16, padded left, with labels."""
    return [_batch(case, model.module, number, length) for number, length in enumerate((8, 16))]


def _batch(case: Case, module: torch.nn.Module, number: int, length: int) -> dict:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(2, VOCABULARY - 10, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    if case.padded:
        mask[0, slice(-2, None) if number == 0 else slice(2)] = 0
    batch = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}
    if case.name.endswith("SequenceClassification"):
        batch["labels"] = torch.tensor([0, 1])
    elif module.config.is_encoder_decoder:
        batch["labels"] = torch.randint(2, VOCABULARY - 10, (2, length - 2), generator=generator)
        if case.padded:
            batch["labels"][1, -1] = -100
    else:
        batch["labels"] = ids.masked_fill(mask == 0, -100)
    if not case.padded:
        del batch["attention_mask"]
    taken = inspect.signature(type(module).forward).parameters
    return {key: value for key, value in batch.items() if key in taken}


def real_tokens(model: generic.Adapter, name: str, batch: dict) -> torch.Tensor | None:
    """Returns which tokens a matrix reads are real, by its name; None if all are."""
    decoder = model.module.config.is_encoder_decoder and "decoder." in name
    own = decoder and not any(part in name for part in CROSS_ATTENTION)
    crossed = decoder and not own and name.rpartition(".")[2] in ("k", "v", "k_proj", "v_proj")
    if decoder and not crossed:
        return batch["labels"] != -100
    return batch["attention_mask"].bool() if "attention_mask" in batch else None
