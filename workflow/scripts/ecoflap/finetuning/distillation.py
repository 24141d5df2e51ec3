"""The second teacher beside the labels: what the dense model says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ecoflap.errors import ModelError
from ecoflap.models.model import IGNORED

if TYPE_CHECKING:
    from ecoflap.models.model import Model


class Logits:
    """Keeps the logits that a model's forward returns."""

    def __init__(self, model: "Model"):
        """Listens to a model until `stop`."""
        self.values: torch.Tensor | None = None
        self.name = type(model.module).__name__
        self._handle = model.module.register_forward_hook(self._keep)

    def _keep(self, _module: object, _inputs: tuple, output: object) -> None:
        self.values = getattr(output, "logits", None)

    def take(self) -> torch.Tensor:
        """Returns the logits of the last forward, [n, tokens, vocabulary].

        Raises:
            ModelError: if the model returned none.
        """
        values, self.values = self.values, None
        if values is None:
            raise ModelError(
                f"distillation, but a forward of {self.name} returns no logits",
                allowed="models that return logits: BLIP-2, T5, decoder-only models, BLIP "
                "captioning",
                fix="Remove the key distillation.",
            )
        return values

    def stop(self) -> None:
        """Listens no more."""
        self._handle.remove()


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, batch: Mapping[str, torch.Tensor], *, shift: bool
) -> torch.Tensor:
    """Returns KL(teacher || student), the mean over the tokens that have a label.

    Args:
        student: Logits, [n, tokens, vocabulary].
        teacher: Logits, [n, tokens, vocabulary].
        batch: Its ``labels`` [n, tokens] are -100 where nothing is to be learned.
        shift: Whether the logits at a token are about the next one (a decoder without encoder).
    """
    labels = batch["labels"]
    if shift:
        student, teacher, labels = student[:, :-1], teacher[:, :-1], labels[:, 1:]
    counted = labels != IGNORED
    return functional.kl_div(
        student[counted].float().log_softmax(-1),
        teacher[counted].float().log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
