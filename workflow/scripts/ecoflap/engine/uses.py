"""Refuses weights that are used without a call of their module: nobody sees what they read."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ecoflap.engine import replay
from ecoflap.errors import PruningError
from ecoflap.models.model import Model


class CallsAlone(TorchFunctionMode):
    """Raises where a forward uses a prunable weight otherwise than by calling its Linear.

    Mamba's ``dt_proj`` is such a one, and a weight that two layers use in different ways.
    """

    def __init__(self, model: Model):
        """Prepares to watch; use it in a ``with``.

        Args:
            model: Whose matrices are watched.
        """
        super().__init__()
        self.matrices = list(model.matrices())
        self.depth = 0  # of the calls of Linears that are running

    def __enter__(self) -> "CallsAlone":
        """Starts to watch."""
        linears = [matrix.module for matrix in self.matrices]
        self.patches = ExitStack()
        self.patches.enter_context(replay.patched(linears, self._call))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        """Stops watching."""
        super().__exit__(*error)
        self.patches.close()

    def _call(self, _: int, forward: Callable, args: tuple, kwargs: dict) -> Any:
        self.depth += 1
        try:
            return forward(*args, **kwargs)
        finally:
            self.depth -= 1

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Runs an operation; refuses what makes a tensor of a weight."""
        result = function(*args, **(kwargs or {}))
        # Asking for a dtype uses nothing, nor does a cast to the dtype that it has.
        if not self.depth and isinstance(result, torch.Tensor):
            for weight in _parameters([*args, *(kwargs or {}).values()]):
                if weight is not result:
                    self._refuse(weight)
        return result

    def _refuse(self, weight: nn.Parameter) -> None:
        # Looked up each time: a weight that waits elsewhere is another object at each visit.
        for matrix in self.matrices:
            if matrix.module._parameters["weight"] is weight:
                raise PruningError(
                    f"{matrix.name} has its weight used without a call of the module, so that "
                    "nobody sees all that it reads",
                    allowed="matrices that the model calls",
                    fix="Prune with magnitude, which reads no inputs, or leave the list of this "
                    "block out with load(..., blocks=...).",
                )


def _parameters(values: list) -> list[nn.Parameter]:
    """Returns the parameters among the arguments of an operation, also those in lists."""
    flat = [
        item for value in values for item in (value if isinstance(value, list | tuple) else [value])
    ]
    return [item for item in flat if isinstance(item, nn.Parameter)]
