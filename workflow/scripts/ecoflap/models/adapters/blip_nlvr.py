"""BLIP for NLVR2 as LAVIS has it: a sentence about two pictures is true or false.

The folder holds ``config.json`` (``{"architectures": ["BlipNLVR"]}``; what else it may say differs
from the published base model: ``image_size``, ``vision``, ``text``), BERT's ``vocab.txt``, and the
weights under LAVIS's names: a published ``.pth`` or ``model.safetensors``.
"""

# Another environment has lavis.
# pyright: reportMissingImports=false

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lavis
import torch
from lavis.models.blip_models.blip_nlvr import BlipNLVR
from lavis.models.blip_models.nlvr_encoder import BertModel
from lavis.models.vit import VisionTransformerEncoder
from lavis.processors.blip_processors import BlipCaptionProcessor, BlipImageEvalProcessor
from safetensors.torch import load_file
from transformers import BatchEncoding, BertConfig, BertTokenizer

from ecoflap.data.picture import opened
from ecoflap.errors import ModelError
from ecoflap.models.adapters._images import CHUNK
from ecoflap.models.adapters._outside import Outside, check_local
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import BlockNames, Matrix

log = logging.getLogger(__name__)
CONFIG = "config.json"
VOCABULARY = "vocab.txt"
MED_CONFIG = "configs/models/med_config.json"  # of the published text encoder, inside LAVIS
# Of the published vision tower, as LAVIS's VisionTransformerEncoder.from_config has it.
VISION = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
IMAGE_SIZE = 384
LABELS = ("False", "True")  # in the order of LAVIS's classes
SIDES = ("left", "right")


class LocalBlipNLVR(BlipNLVR):
    """The model without its tokenizer, which LAVIS takes from the hub; texts come as tokens."""

    @classmethod
    def init_tokenizer(cls) -> "Tokens":
        """Returns what stands for the tokenizer."""
        return Tokens()


class Tokens:
    """Passes on the tokens that `Processor` made, at the place where LAVIS asks for some."""

    enc_token_id: int

    def __call__(self, text: Mapping[str, torch.Tensor], **_: str) -> BatchEncoding:
        """Returns the tokens; LAVIS writes the first one anew."""
        return BatchEncoding({**text, "input_ids": text["input_ids"].clone()})


class Processor:
    """Prepares pictures and sentences as LAVIS evaluates them."""

    def __init__(self, folder: str | Path, image_size: int):
        """Reads the vocabulary.

        Args:
            folder: Holds ``vocab.txt``.
            image_size: Height and width of a picture.

        Raises:
            ModelError: if there is no vocabulary.
        """
        if not Path(folder, VOCABULARY).is_file():
            raise ModelError(
                f"'{folder}' has no {VOCABULARY}",
                allowed="the vocabulary of bert-base-uncased beside the weights",
                fix="Put it there.",
            )
        self.tokenizer: Any = BertTokenizer(str(Path(folder, VOCABULARY)))
        # Behind BERT's own tokens, in LAVIS's order.
        self.tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        self.tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        self.enc_token_id = self.tokenizer.additional_special_tokens_ids[0]
        self.picture = BlipImageEvalProcessor(image_size=image_size)
        self.sentence = BlipCaptionProcessor()

    def pixels(self, images: Sequence) -> torch.Tensor:
        """Prepares pictures, [n, 3, height, width]."""
        return torch.stack([self.picture(opened(image)) for image in images])

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns input_ids, which begin with [ENC], and attention_mask [n, tokens]."""
        made = self.tokenizer(
            [self.sentence(text) for text in texts], padding="longest", return_tensors="pt"
        )
        made["input_ids"][:, 0] = self.enc_token_id
        return {name: made[name] for name in ("input_ids", "attention_mask")}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the vocabulary without the tokens that are added."""
        words = sorted(self.tokenizer.vocab.items(), key=lambda item: item[1])
        text = "".join(f"{word}\n" for word, _ in words)
        Path(folder, VOCABULARY).write_text(text, encoding="utf-8")


class Adapter(Outside):
    """LAVIS's ``BlipNLVR``, with LAVIS's own loss."""

    weights_file = "model.safetensors"
    never_pruned = (*Outside.never_pruned, "cls_head")

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Builds the model without network and loads its weights from a folder."""
        check_local(loader, CONFIG)
        text = Path(loader.path, CONFIG).read_text(encoding="utf-8")
        config = json.loads(text)
        size = config.get("image_size", IMAGE_SIZE)
        processor = Processor(loader.path, size)
        module = LocalBlipNLVR(
            VisionTransformerEncoder(img_size=size, **{**VISION, **config.get("vision", {})}),
            BertModel(_text_config(config.get("text", {})), add_pooling_layer=False),
            num_classes=len(LABELS),
        )
        module.tokenizer.enc_token_id = processor.enc_token_id
        _load_weights(module, Path(loader.path))
        module = module.to(loader.dtype)
        model = cls(
            module.to(loader.device) if loader.offload == "none" else module, processor, blocks
        )
        model.files = {CONFIG: text}
        return model

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``left``, ``right``, ``text`` and ``label`` (True, False).

        Returns:
            left and right [n, 3, height, width], input_ids and attention_mask [n, tokens], and
            labels [n].
        """
        sides = {side: self.processor.pixels([e[side] for e in examples]) for side in SIDES}
        labels = torch.tensor([LABELS.index(e["label"]) for e in examples])
        return {**sides, **self.processor.tokens([e["text"] for e in examples]), "labels": labels}

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the cross-entropy of true and false."""
        return self.module(_samples(batch))["loss"]

    def valid_tokens(
        self, matrix: Matrix, batch: Mapping[str, torch.Tensor], *, encoder_states: bool = False
    ) -> torch.Tensor | None:
        """Returns which input tokens of a matrix are real: all that come from a picture."""
        *_, attention, part = matrix.name.rsplit(".", 2)
        if attention in ("self0", "self1") and part in ("key", "value"):
            return None
        return super().valid_tokens(matrix, batch)

    @torch.no_grad()
    def judge(self, left: Sequence, right: Sequence, texts: Sequence[str]) -> list[bool | None]:
        """Tells for each sentence whether it is true of the two pictures beside it.

        None where the model's logits are not finite.
        """
        found: list[bool | None] = []
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            batch = {
                "left": self.processor.pixels(left[part]),
                "right": self.processor.pixels(right[part]),
                **self.processor.tokens(texts[part]),
                "labels": torch.zeros(len(texts[part]), dtype=torch.long),  # LAVIS counts them
            }
            answers = self.module.predict(_samples(self.to_device(batch)))["predictions"]
            true = (answers.argmax(-1) == LABELS.index("True")).tolist()
            finite = answers.isfinite().all(-1).tolist()
            found += [answer if known else None for answer, known in zip(true, finite, strict=True)]
        return found


def _samples(batch: Mapping[str, torch.Tensor]) -> dict:
    """Names a batch as LAVIS does."""
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    images = {f"image{number}": batch[side] for number, side in enumerate(SIDES)}
    return {**images, "text_input": text, "label": batch["labels"]}


def _text_config(changes: Mapping) -> BertConfig:
    published = Path(str(lavis.__file__)).parent / MED_CONFIG
    return BertConfig(**{**json.loads(published.read_text(encoding="utf-8")), **changes})


def _load_weights(module: BlipNLVR, folder: Path) -> None:
    """Loads weights under LAVIS's names.

    Raises:
        ModelError: if there is no file or more than one, or a weight is missing.
    """
    files = [path for pattern in ("*.safetensors", "*.pth") for path in folder.glob(pattern)]
    if len(files) != 1:
        raise ModelError(
            f"{len(files)} files with weights in '{folder}'",
            allowed="one .safetensors or .pth file",
            fix="Put the published checkpoint there, alone.",
        )
    tensors = _read(files[0])
    found = module.load_state_dict(tensors, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"{files[0]} has no weights for {missing[0]} ({len(missing)} missing)",
            allowed="every weight of LAVIS's BlipNLVR",
            fix="Use a checkpoint that was fine-tuned on NLVR2.",
        )
    if found.unexpected_keys:
        log.warning("%s: not used: %s", files[0], ", ".join(found.unexpected_keys))


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    content = torch.load(file, map_location="cpu", weights_only=True)
    return content.get("model", content)
