"""Models of libraries other than transformers, loaded from a folder of their own layout."""

# Other environments have torchvision.
# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file

from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.model import Model
from ecoflap.models.offload import HostStore

_operators: list[torch.library.Library] = []  # they are gone when the object is


def import_torchvision() -> None:
    """Imports torchvision beside a torch without CUDA, whose operators its wheel lacks."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
        import torchvision  # noqa: F401


def check_local(loader: Loader, config_file: str) -> None:
    """Refuses what only checkpoints of transformers offer.

    Args:
        loader: What is to be loaded, and how.
        config_file: What the folder must hold.

    Raises:
        ModelError: for a hub id, and for weights that wait on the disk.
    """
    if not Path(loader.path, config_file).is_file():
        raise ModelError(
            f"'{loader.path}'",
            allowed=f"a local folder with {config_file}",
            fix="Download it first.",
        )
    if loader.offload == "disk":
        raise ModelError(
            "offload 'disk'",
            allowed="none, cpu for models of other libraries",
            fix="Choose one.",
        )


class Outside(Model):
    """Saves the model as the layout of its own library, config file and all.

    Attributes:
        files: Text of each file beside the weights, by name.
    """

    module: Any  # of a class of its library
    weights_file: ClassVar[str]
    files: dict[str, str]

    def save(self, folder: str | Path) -> None:
        """Writes a folder that `ecoflap.load` and the library itself load.

        Raises:
            ModelError: if the path is a file.
        """
        folder = Path(folder)
        if folder.is_file():
            raise ModelError(f"save to '{folder}', a file", allowed="a folder", fix="Name another.")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        tensors = self.module.state_dict()
        store = self.weights.store if self.weights else None
        if isinstance(store, HostStore):  # `check_local` leaves no other
            tensors |= store.tensors
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / self.weights_file, metadata={"format": "pt"})
        self.processor.save_pretrained(folder)
