"""Where the weights of blocks are while their block does not run: on the host, or on the disk.

A block's weights come to the device when the block is entered and leave it when the block is
left, so that the device holds one block at a time beside what is not in any block.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from ecoflap.devices import return_memory
from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.casting import cast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("none", "cpu", "disk")
SHARD_BYTES = 128 * 2**20  # of a saved checkpoint; writing one takes twice its size


class Store(Protocol):
    """Holds the weights of blocks by the names of the model's parameters."""

    kind: str

    def read(self, name: str) -> torch.Tensor:
        """Returns a tensor; the caller copies it."""
        ...

    def write(self, changed: Mapping[str, torch.Tensor]) -> None:
        """Replaces tensors."""
        ...

    def save(self, module: "PreTrainedModel", folder: Path) -> None:
        """Writes the whole model as a checkpoint."""
        ...


class HostStore:
    """Keeps the weights in the host's memory."""

    kind = "cpu"

    def __init__(self, parameters: Mapping[str, torch.Tensor]):
        """Args: parameters by name."""
        pinned = torch.cuda.is_available()
        self.tensors = {
            name: (tensor.detach().cpu().pin_memory() if pinned else tensor.detach().cpu())
            for name, tensor in parameters.items()
        }

    def read(self, name: str) -> torch.Tensor:
        """Returns the stored tensor itself."""
        return self.tensors[name]

    def write(self, changed: Mapping[str, torch.Tensor]) -> None:
        """Copies new values into the stored tensors."""
        for name, tensor in changed.items():
            self.tensors[name].copy_(tensor.detach())

    def save(self, module: "PreTrainedModel", folder: Path) -> None:
        """Writes the whole model with ``save_pretrained``."""
        module.save_pretrained(folder, state_dict={**module.state_dict(), **self.tensors})


class DiskStore:
    """Reads weights from a checkpoint's shards; new values go to files in a scratch folder."""

    kind = "disk"

    def __init__(self, index: Mapping[str, Mapping]):
        """Prepares the scratch folder.

        Args:
            index: ``safetensors_file`` and ``weight_name`` of each parameter.
        """
        self.index = index
        self.stamps = {file: _stamp(file) for file in self._files()}
        self.scratch = TemporaryDirectory(prefix="ecoflap-weights-")
        self.changed: dict[str, Path] = {}

    def read(self, name: str) -> torch.Tensor:
        """Reads the newest value of a parameter."""
        if name in self.changed:
            return _read(self.changed[name], name)
        file, key = (self.index[name][part] for part in ("safetensors_file", "weight_name"))
        if _stamp(file) != self.stamps[file]:
            raise ModelError(
                f"{file} has changed since the model was loaded",
                allowed="the file that offload='disk' reads from, as it was",
                fix="Load the model again.",
            )
        return _read(Path(file), key)

    def write(self, changed: Mapping[str, torch.Tensor]) -> None:
        """Writes new values to one file."""
        from safetensors.torch import save_file

        path = Path(self.scratch.name, f"{len(os.listdir(self.scratch.name)):06d}.safetensors")
        save_file({name: t.detach().cpu().contiguous() for name, t in changed.items()}, path)
        self.changed.update(dict.fromkeys(changed, path))

    def save(self, module: "PreTrainedModel", folder: Path) -> None:
        """Copies the checkpoint with the changed tensors, a shard of it in memory at a time.

        Raises:
            ModelError: if the folder is the checkpoint's own, which is read at the same time.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if any(Path(file).parent.samefile(folder) for file in self._files()):
            raise ModelError(
                f"save to '{folder}', from which offload='disk' reads the weights",
                allowed="another folder",
                fix="Save elsewhere, and move the folder when the model is no longer in use.",
            )
        for old in folder.glob("model*.safetensors*"):
            old.unlink()  # transformers would read an older single file instead of the shards
        files: dict[str, str] = {}
        for number, shard in enumerate(self._shards(module)):
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            files.update(dict.fromkeys(shard, file))
        size = sum((folder / file).stat().st_size for file in set(files.values()))
        content = {"metadata": {"total_size": size}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )
        module.config.save_pretrained(folder)
        if module.can_generate():
            module.generation_config.save_pretrained(folder)

    def _files(self) -> set[str]:
        return {where["safetensors_file"] for where in self.index.values()}

    def _shards(self, module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """Yields the tensors of the checkpoint under its own keys, `SHARD_BYTES` at a time."""
        formats = {name: parameter.dtype for name, parameter in module.named_parameters()}
        most = next(iter(formats.values()))
        names = {
            (Path(where["safetensors_file"]), where["weight_name"]): name
            for name, where in self.index.items()
        }
        shard: dict[str, torch.Tensor] = {}
        size = 0
        for path in _checkpoint(next(iter(names))[0].parent):
            for key in _keys(path):
                name = names.get((path, key))
                tensor = _read(path, key) if name is None else self.read(name)
                tensor = cast(key, tensor, formats.get(name or key, most))
                bytes_more = tensor.numel() * tensor.element_size()
                if shard and size + bytes_more > SHARD_BYTES:
                    yield shard
                    shard, size = {}, 0
                shard[key] = tensor
                size += bytes_more
        yield shard


class Offload:
    """Brings the weights of blocks to the device and takes them away again."""

    def __init__(
        self,
        blocks: Sequence[tuple[str, nn.Module]],
        store: Store,
        device: torch.device,
    ):
        """Takes the weights of all blocks away.

        Args:
            blocks: Name and module of each block, its parameters in the number formats that they
                have on the device.
            store: Holds the weights from now on.
            device: Where blocks run.
        """
        self.store, self.device = store, device
        self.slots = [_slots(name, module) for name, module in blocks]
        self.entered: Counter[int] = Counter()
        for index in range(len(self.slots)):
            self._leave(index)

    @contextmanager
    def resident(self, index: int) -> Iterator[None]:
        """Holds the weights of a block on the device; may be nested."""
        if not self.entered[index]:
            for owner, key, name in self.slots[index]:
                tensor = self.store.read(name)
                held: dict[str, Any] = owner._parameters
                tensor = cast(name, tensor, held[key].dtype)
                tensor = tensor.to(self.device, copy=True)
                held[key] = nn.Parameter(tensor, requires_grad=False)
        self.entered[index] += 1
        try:
            yield
        finally:
            self.entered[index] -= 1
            if not self.entered[index]:
                self._leave(index)
                return_memory()

    def _leave(self, index: int) -> None:
        for owner, key, _ in self.slots[index]:
            held: dict[str, Any] = owner._parameters
            empty = torch.empty(held[key].shape, dtype=held[key].dtype, device="meta")
            held[key] = nn.Parameter(empty, requires_grad=False)


def _checkpoint(folder: Path) -> list[Path]:
    """Returns the files that transformers reads the weights of a folder from, and no others."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return sorted({folder / name for name in index["weight_map"].values()})


def _stamp(file: str) -> tuple[int, int] | None:
    """Returns size and time of a file; None if it is gone."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _read(path: Path, key: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)


def _slots(name: str, block: nn.Module) -> list[tuple[nn.Module, str, str]]:
    """Lists owner, key and full name of each parameter of a block."""
    return [
        (module, key, ".".join(filter(None, (name, path, key))))
        for path, module in block.named_modules()
        for key, parameter in module._parameters.items()
        if parameter is not None
    ]
