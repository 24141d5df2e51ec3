"""Loads a checkpoint's weights: onto the device, into the host's memory, or not at all."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from ecoflap.errors import ModelError
from ecoflap.models.model import BlockNames, Model
from ecoflap.models.offload import KINDS, DiskStore, HostStore, Offload

if TYPE_CHECKING:
    from collections.abc import Mapping

    # transformers 4, which LAVIS needs, has another name for a config.
    from transformers import PreTrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
PLAIN_ATTENTION = ("eager", "sdpa")  # what PyTorch alone computes
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


class Loader:
    """Loads the weights of one checkpoint and decides where those of blocks stay."""

    def __init__(self, path: str, *, dtype: torch.dtype, device: str, offload: str):
        """Checks the arguments.

        Args:
            path: Folder or hub id.
            dtype: Number format of the weights.
            device: Where the model computes.
            offload: ``none``, ``cpu`` or ``disk``: where the weights of blocks wait.

        Raises:
            ModelError: for an unknown kind of offload.
        """
        if offload not in KINDS:
            raise ModelError(f"offload '{offload}'", allowed=", ".join(KINDS), fix="Choose one.")
        self.path, self.dtype, self.device, self.offload = (
            path,
            dtype,
            torch.device(device),
            offload,
        )
        self.index: Mapping[str, Mapping] = {}

    def module(self, auto_class: type, blocks: BlockNames | None) -> PreTrainedModel:
        """Loads a model with a class of transformers; with ``disk``, without the blocks' weights.

        Args:
            auto_class: An Auto class or a model class.
            blocks: As in `ecoflap.load`.
        """
        if self.offload != "disk":
            module = self._whole(auto_class)
            return module.to(self.device) if self.offload == "none" else module
        if not any(has_file(self.path, name) for name in SAFETENSORS):
            raise _no_disk(f"'{self.path}' has no safetensors files")
        skeleton = Model(_skeleton(auto_class, self.path), None, blocks)
        places = _places(
            skeleton.module, {block.name for block in skeleton.blocks}, str(self.device)
        )
        module = self._whole(auto_class, device_map=places)
        self.index = _take_weights(module)
        _keep_precise(module, self.dtype)
        return module

    def _whole(self, auto_class: type, **options) -> Any:
        """Loads a checkpoint that holds every weight of the model."""
        module, report = auto_class.from_pretrained(
            self.path,
            config=_config(self.path),
            dtype=self.dtype,
            output_loading_info=True,
            trust_remote_code=False,
            **options,
        )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ModelError(
                f"'{self.path}' has no weights for {missing[0]} ({len(missing)} missing)",
                allowed=f"every weight of {type(module).__name__}",
                fix="Use a whole checkpoint; transformers would fill the gaps with random numbers.",
            )
        unused = sorted(
            key for key in report["unexpected_keys"] if _belongs_to_a_layer(module, key)
        )
        if unused:
            raise ModelError(
                f"'{self.path}' has {unused[0]}, for which {type(module).__name__} has no "
                f"place ({len(unused)} in all)",
                allowed="blocks as many as config.json says, of layers that hold what the file has",
                fix="Load the unquantized, merged checkpoint with the config.json it was saved "
                "with; transformers would leave these numbers out.",
            )
        return module

    def processor(self, auto_class: type):
        """Loads the processor or tokenizer of a model that cannot do without text.

        Args:
            auto_class: ``AutoProcessor`` or ``AutoTokenizer``.

        Raises:
            ModelError: if there is no tokenizer; transformers would make up an empty one.
        """
        if not any(has_file(self.path, name) for name in TOKENIZER_FILES):
            raise ModelError(
                f"'{self.path}' has no tokenizer",
                allowed=f"{' or '.join(TOKENIZER_FILES)} beside the weights",
                fix="Save the model's processor or tokenizer into the same folder.",
            )
        return auto_class.from_pretrained(self.path, trust_remote_code=False)

    def place(self, model: Model) -> None:
        """Takes the weights of a model's blocks to where they wait."""
        if self.offload == "none":
            return
        blocks = [(block.name, block.module) for block in model.blocks]
        if self.offload == "disk":
            store = DiskStore(self.index)
        else:
            weights = {
                f"{name}.{key}": parameter
                for name, module in blocks
                for key, parameter in module.named_parameters()
            }
            store = HostStore(weights)
        model.weights = Offload(blocks, store, self.device)
        for module in model.module.modules():
            for tensor in [*module._parameters.values(), *module._buffers.values()]:
                if tensor is not None and tensor.device.type != "meta":
                    tensor.data = tensor.to(self.device)


def _belongs_to_a_layer(module: nn.Module, key: str) -> bool:
    """Tells whether a tensor of a file lies in a Linear of the model, or in a block it lacks.

    Such a one is a scale, a bias or a block that the model should have; elsewhere it is a head or
    a buffer of older versions.
    """
    part: nn.Module = module
    for name in key.split("."):
        child = part._modules.get(name)
        if child is None:
            break
        part = child
    return isinstance(part, nn.Linear | nn.ModuleList)


def has_file(path: str, name: str) -> bool:
    """Tells whether a folder or a hub id has a file; what cannot be reached is not there."""
    return find_file(path, name) is not None


def find_file(path: str, name: str) -> str | None:
    """Returns where a file of a folder or a hub id lies; None if it cannot be reached."""
    quiet = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    return cached_file(path, name, **quiet)


def _skeleton(auto_class: type, path: str) -> PreTrainedModel:
    """Builds the model without weights, to see its modules."""
    from accelerate import init_empty_weights

    build = getattr(auto_class, "from_config", None) or auto_class._from_config
    with init_empty_weights():
        return build(_config(path))


def _config(path: str) -> PreTrainedConfig:
    """Reads a config; attention that needs another package becomes transformers' own default.

    All implementations compute the same function; flash attention is a matter of speed.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    parts: list[Any] = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        asked = getattr(part, "_attn_implementation", None)
        if asked not in (None, *PLAIN_ATTENTION):
            log.info("'%s' asks for %s: attention is that of PyTorch instead", path, asked)
            part._attn_implementation = None
    return config


def _places(module: nn.Module, blocks: set[str], device: str, prefix: str = "") -> dict[str, str]:
    """Maps each block to the disk and everything else to the device."""
    places: dict[str, str] = {}
    held = [key for key, value in module._parameters.items() if value is not None]
    places.update({prefix + key: device for key in [*held, *module._buffers]})
    for name, child in module.named_children():
        path = prefix + name
        if any(block.startswith(f"{path}.") for block in blocks):
            places.update(_places(child, blocks, device, f"{path}."))
        else:
            places[path] = "disk" if path in blocks else device
    return places


def _take_weights(module: nn.Module) -> Mapping[str, Mapping]:
    """Removes accelerate's hooks; returns in which file each weight on the disk is, by name."""
    from accelerate.hooks import remove_hook_from_submodules

    for part in module.modules():
        weights = getattr(getattr(part, "_hf_hook", None), "weights_map", None)
        if weights is not None:
            remove_hook_from_submodules(module)
            return weights.dataset.index
    raise _no_disk(f"{type(module).__name__} left nothing on the disk")


def _keep_precise(module: PreTrainedModel, dtype: torch.dtype) -> None:
    """Gives weights that wait on the disk the format that transformers loads them in elsewhere.

    A class may keep parts of a model in float32 (``wo`` of T5, the Q-Former of BLIP-2).
    """
    plan = {
        re.compile(part.replace("*", ".*")): to
        for part, to in module._get_dtype_plan(dtype).items()
    }
    for name, parameter in module.named_parameters():
        found = next((to for part, to in plan.items() if part.search(name)), None)
        if found is not None and parameter.device.type == "meta":
            parameter.data = parameter.data.to(found)


def _no_disk(seen: str) -> ModelError:
    return ModelError(
        seen,
        allowed="for offload='disk' a checkpoint in safetensors files with transformer blocks",
        fix="Convert the checkpoint with save_pretrained, or load it with offload='cpu'.",
    )
