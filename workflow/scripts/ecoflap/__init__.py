"""ECoFLaP: coarse-to-fine layer-wise pruning of vision-language models.

Sung, Yoon, Bansal: Efficient Coarse-to-Fine Layer-Wise Pruning for Vision-Language
Models, ICLR 2024. The names below load their modules on first use, so that
``ecoflap.allocation`` can be used where torch is not installed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecoflap.allocation import allocate
    from ecoflap.finetuning.training import finetune
    from ecoflap.models import load
    from ecoflap.pruning.layerwise import prune
    from ecoflap.scores import score

__version__ = "0.2.0"

_PUBLIC = {
    "load": "ecoflap.models",
    "score": "ecoflap.scores",
    "allocate": "ecoflap.allocation",
    "prune": "ecoflap.pruning.layerwise",
    "finetune": "ecoflap.finetuning.training",
}
__all__ = ["allocate", "finetune", "load", "prune", "score"]


def __getattr__(name: str) -> Any:
    """Imports a public function, or a submodule, when it is first asked for."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    try:
        return importlib.import_module(f"ecoflap.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"ecoflap.{name}":
            raise AttributeError(f"module 'ecoflap' has no attribute '{name}'") from None
        raise
