"""Small random checkpoints in the layouts of LAVIS and open_clip, made by these libraries alone.

As a script, in the environment of a family: the family and the folder to fill.
"""

import sys
from pathlib import Path

import torch

from ecoflap.models.adapters._outside import import_torchvision
from helpers import layouts
from helpers.noise import randomize

import_torchvision()  # before LAVIS, open_clip or timm
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NLVR = {
    "architectures": ["BlipNLVR"],
    "image_size": 16,
    "vision": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
    # From block 6 on LAVIS merges the two pictures by a matrix.
    "text": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 8,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "vocab_size": len(SPECIAL) + len(layouts.WORDS) + 2,
        "encoder_width": 16,
    },
}


def blip_nlvr(folder: Path) -> torch.nn.Module:
    """Writes what a user has: config.json, BERT's vocabulary, and a published kind of .pth.

    Returns:
        LAVIS's model, with a tokenizer.
    """
    from lavis.models.blip_models.blip_nlvr import BlipNLVR
    from lavis.models.blip_models.nlvr_encoder import BertModel
    from lavis.models.vit import VisionTransformerEncoder
    from transformers import BertConfig, BertTokenizer

    layouts.write(folder / "config.json", NLVR)
    layouts.write(folder / "vocab.txt", "\n".join([*SPECIAL, *layouts.WORDS]) + "\n")

    class Offline(BlipNLVR):
        @classmethod
        def init_tokenizer(cls):
            tokenizer = BertTokenizer.from_pretrained(str(folder), model_max_length=64)
            tokenizer.add_special_tokens({"bos_token": "[DEC]"})
            tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
            tokenizer.enc_token_id = tokenizer.additional_special_tokens_ids[0]
            return tokenizer

    text = BertConfig(**NLVR["text"], add_cross_attention=True, pad_token_id=0)
    vision = VisionTransformerEncoder(img_size=NLVR["image_size"], **NLVR["vision"])
    model = Offline(vision, BertModel(text, add_pooling_layer=False), num_classes=2)
    randomize(model, 0.3)
    torch.save({"model": model.state_dict()}, folder / "model_base_nlvr.pth")
    return model.eval()


def open_clip(folder: Path, vision: str = "eva02_tiny_patch14_224", size: int = 224) -> None:
    """Writes a folder of open_clip with a vision tower of timm."""
    import open_clip as library
    from safetensors.torch import save_file

    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    image = {"image_size": size, "timm_model_name": vision, "timm_pool": "token", "timm_proj": None}
    config = {"embed_dim": 24, "vision_cfg": image, "text_cfg": text, "custom_text": True}
    layouts.write(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
    model = library.CustomTextCLIP(24, image, text)
    # Of EVA's layers with layer scale and without, none must drown the others.
    randomize(model, 0.1)
    with torch.no_grad():
        model.logit_scale.fill_(1.0)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    {"blip-nlvr": blip_nlvr, "open-clip": open_clip}[sys.argv[1]](Path(sys.argv[2]))
