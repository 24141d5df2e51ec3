"""Reads checkpoints of LAVIS and of ECoFLaP's public code, and gives their weights our names."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.casting import cast
from ecoflap.models.checkpoints.files import check_content, pickle_reason
from ecoflap.models.model import Model
from ecoflap.plugins import unknown

Rules = tuple[tuple[str, str], ...]  # pattern and replacement, the first match of each in turn

VISION: Rules = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"^(vision_model\.encoder\.layers\.\d+\.)norm([12])\.", r"\1layer_norm\2."),
    (r"^(vision_model\.encoder\.layers\.\d+\.)attn\.proj\.", r"\1self_attn.projection."),
    (r"^(vision_model\.encoder\.layers\.\d+\.)attn\.", r"\1self_attn."),
)
BLIP2: Rules = (
    *VISION,
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^(opt|t5)_model\.", "language_model."),
    (r"^(opt|t5)_proj\.", "language_projection."),
    (r"^(vision|text)_proj\.", r"\1_projection."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^Qformer\.bert\.embeddings\.", "embeddings."),
    (r"^Qformer\.bert\.", "qformer."),
    (r"^(qformer\..*attention)\.self\.", r"\1.attention."),
)
# What training alone needs: momentum copies, queues, buffers that are made anew, heads of the
# Q-Former that no evaluation reads.
NEEDLESS = re.compile(r"_m\.|queue|position_ids$|^temp$|^Qformer\.cls\.|relative_position_index$")
FORMATS: dict[str, Rules] = {
    "lavis-blip2": BLIP2,
    "lavis-blip": VISION,
    "t5": ((r"^t5_model\.", ""),),
    "eva-vit": (
        (r"^(?!visual_encoder\.|ln_vision\.)", "visual_encoder."),
        *BLIP2,
    ),
}


def read(path: str | Path, form: str) -> dict[str, torch.Tensor]:
    """Reads a ``.pth`` file without running any code of it.

    Args:
        path: The file; the weights lie under ``model``, under ``state_dict``, or at its top.
        form: ``lavis-blip2`` (T5, OPT and matching), ``lavis-blip``, ``t5`` or ``eva-vit`` (the
            vision tower of BLIP-2 alone).

    Returns:
        Weights under the names of transformers.

    Raises:
        ModelError: for an unknown format, and a file that is missing, damaged, or holds more
            than tensors.
    """
    if form not in FORMATS:
        raise ModelError(unknown("checkpoint format", form, FORMATS))
    if Path(path).is_file():
        check_content(Path(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of many kinds: not there, damaged, or more than tensors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):
            reason = pickle_reason(error)
        raise ModelError(
            f"cannot read '{path}' ({reason})",
            allowed="a whole .pth file with tensors and nothing that runs code",
            fix="Copy it again; a file with other objects must be saved anew with tensors alone.",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ModelError(
            f"'{path}' holds no weights",
            allowed="names with tensors",
            fix="Name another file.",
        )
    found = {name: tensor for name, tensor in tensors.items() if not NEEDLESS.search(name)}
    return _renamed(_with_biases(found), FORMATS[form])


def put(model: Model, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replaces weights of a model.

    Args:
        model: Changed in place.
        tensors: What `read` returned; part of the model is enough, but all of it must fit.

    Returns:
        The new values of all weights that changed, by name.

    Raises:
        ModelError: for names that the model has not, other shapes, and numbers that are not finite
            in its number format.
    """
    state = model.module.state_dict()
    odd = [name for name in tensors if name not in state]
    odd += [n for n, t in tensors.items() if n in state and state[n].shape != t.shape]
    if odd:
        first = ", ".join(odd[:3])
        raise ModelError(
            f"{len(odd)} of {len(tensors)} weights do not fit "
            f"{type(model.module).__name__}: {first}",
            allowed="weights of this architecture, under the names of the format",
            fix="Choose another format, or the model that the checkpoint belongs to.",
        )
    changed = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            new = cast(name, tensor, state[name].dtype).to(state[name])
            if not torch.equal(new, state[name]):
                state[name].copy_(new)
                changed[name] = state[name]
    return changed


def _with_biases(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Joins the biases of queries and values; EVA's keys have none, which is a bias of zero."""
    found = dict(tensors)
    for name in [name for name in tensors if name.endswith(".attn.q_bias")]:
        query, value = found.pop(name), found.pop(name.replace("q_bias", "v_bias"))
        joined = torch.cat([query, torch.zeros_like(query), value])
        found[name.replace("q_bias", "qkv.bias")] = joined
    return found


def _renamed(tensors: Mapping[str, torch.Tensor], rules: Iterable) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new, count=1)
        found[new] = tensor
    return found
