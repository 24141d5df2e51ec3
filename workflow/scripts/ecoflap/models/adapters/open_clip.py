"""Models of open_clip, EVA-CLIP among them: two towers and the contrastive loss.

The folder has open_clip's own layout: ``open_clip_config.json`` and the weights, in
``open_clip_model.safetensors`` or another name that open_clip takes.
"""

# Another environment has open_clip; here its name is that of this file.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from ecoflap.data.picture import opened
from ecoflap.errors import ModelError
from ecoflap.models.adapters._contrastive import Contrastive, unit
from ecoflap.models.adapters._outside import Outside, check_local
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import BlockNames
from ecoflap.plugins import FAMILIES

CONFIG = FAMILIES["open-clip"].config_file


class Processor:
    """The picture's transform and the tokenizer that the config names."""

    def __init__(self, module: Any, name: str):
        """Makes both.

        Args:
            module: The model.
            name: What open_clip loads it by.
        """
        self.picture = image_transform_v2(
            PreprocessCfg(**module.visual.preprocess_cfg), is_train=False
        )
        self.tokenizer = open_clip.get_tokenizer(name)

    def pixels(self, images: Sequence) -> torch.Tensor:
        """Prepares pictures, [n, 3, height, width]."""
        return torch.stack([self.picture(opened(image)) for image in images])

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer's files, if it is not the one that open_clip brings along."""
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(folder)


class Adapter(Contrastive, Outside):
    """Any model with an image and a text tower; Wanda compares whole matrices in a vision tower."""

    weights_file = "open_clip_model.safetensors"

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Loads the model, its transform and its tokenizer from a folder.

        Raises:
            ModelError: if its loss is not the softmax over a batch.
        """
        check_local(loader, CONFIG)
        name = f"local-dir:{loader.path}"
        module = open_clip.create_model(name, require_pretrained=True, pretrained_text=False)
        if not isinstance(module, open_clip.CLIP | open_clip.CustomTextCLIP) or (
            module.logit_bias is not None
        ):
            raise ModelError(
                f"'{loader.path}' is a {type(module).__name__} with a loss of another kind",
                allowed="models of open_clip with the contrastive loss of CLIP",
                fix="Choose another checkpoint.",
            )
        _call_every_linear(module)
        module = module.to(loader.dtype)
        processor = Processor(module, name)
        model = cls(
            module.to(loader.device) if loader.offload == "none" else module, processor, blocks
        )
        model.files = {CONFIG: Path(loader.path, CONFIG).read_text(encoding="utf-8")}
        return model

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image`` and ``caption``.

        Returns:
            pixel_values [n, 3, height, width] and input_ids [n, tokens].
        """
        texts = self.processor.tokenizer([e["caption"] for e in examples])
        pixels = self.processor.pixels([e["image"] for e in examples])
        return {"pixel_values": pixels, "input_ids": texts}

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the contrastive loss over the pairs of a batch.

        Raises:
            ModelError: if the batch has one pair, whose loss is always zero.
        """
        if len(batch["input_ids"]) < 2:
            raise ModelError(
                "a batch of one picture and its caption",
                allowed="batches of at least two: the contrastive loss of one is always zero",
                fix="Raise the batch size, so that no batch is left with one sample.",
            )
        images = self.module.encode_image(batch["pixel_values"], normalize=True)
        texts = self.module.encode_text(batch["input_ids"], normalize=True)
        return ClipLoss()(images, texts, self.module.logit_scale.exp())

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Returns embeddings of length 1, [n, d]."""
        batch = self.to_device({"pixel_values": self.processor.pixels(images)})
        return unit(self.module.encode_image(batch["pixel_values"]))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns embeddings of length 1, [n, d]."""
        return unit(self.module.encode_text(self.processor.tokenizer(list(texts)).to(self.device)))

    def compare(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Returns scaled cosines [n_images, n_texts]."""
        return images @ texts.T * self.module.logit_scale.exp().float().cpu()


def _call_every_linear(module: Any) -> None:
    """Makes timm's EVA add the bias of queries and values after calling the Linear.

    Otherwise it takes the Linear's weight alone, and nobody sees what the Linear would read.
    """
    for part in module.modules():
        if hasattr(part, "qkv_bias_separate"):
            part.qkv_bias_separate = True
