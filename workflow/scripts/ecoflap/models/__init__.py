"""Adapters: the only modules that know transformers. `load` picks one by the model's type."""

from pathlib import Path
from typing import TYPE_CHECKING

from ecoflap.errors import ModelError, message
from ecoflap.registry import ADAPTERS

if TYPE_CHECKING:
    from ecoflap.models.base import Model

_MODEL_TYPES = {"blip-2": "blip2", "clip": "clip"}
DTYPES = ("float32", "bfloat16", "float16")


def family_of(model_type: str, architectures: list[str] | None) -> str:
    """Returns the family of a Hugging Face config.

    Args:
        model_type: The config's ``model_type``.
        architectures: The config's ``architectures``.

    Raises:
        ModelError: if no adapter fits.
    """
    if model_type in _MODEL_TYPES:
        return _MODEL_TYPES[model_type]
    if any(name.endswith("ForCausalLM") for name in architectures or []):
        return "causal-lm"
    raise ModelError(
        message(
            f"no adapter for model type '{model_type}' ({', '.join(architectures or ['?'])})",
            f"{', '.join(_MODEL_TYPES)}, and any ...ForCausalLM",
            "Write a subclass of ecoflap.models.base.Model and name it in ecoflap/registry.py.",
        )
    )


def load(
    path: str | Path, *, dtype: str = "float32", device: str = "auto", family: str | None = None
) -> "Model":
    """Loads a model that can be scored and pruned.

    Args:
        path: A folder written by ``save_pretrained`` with its processor files, or a hub id.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        family: What the checkpoint is expected to be; anything by default.

    Raises:
        ModelError: if the model cannot be read, no adapter fits, or it is of another family.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    from ecoflap.runtime import resolve_device

    if dtype not in DTYPES:
        raise ModelError(message(f"dtype '{dtype}'", ", ".join(DTYPES), "Correct the dtype."))
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    found = family_of(config.model_type, config.architectures)
    if family not in (None, found):
        raise ModelError(
            message(f"'{path}' is of the family {found}", family, f"Set family: {found}.")
        )
    adapter = ADAPTERS.get(found).Adapter
    device = resolve_device(device)
    try:
        return adapter.from_pretrained(str(path), getattr(torch, dtype), device)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> ModelError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ModelError(
        message(
            f"cannot load a model from '{path}' ({reason})",
            "a folder with config.json, whole safetensors and processor files, or a hub id that "
            "can be reached",
            "Check the path; without network, download the model first.",
        )
    )
