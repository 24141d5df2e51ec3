"""What fine-tuning makes smaller: the model's own loss, and the distance from the dense model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ecoflap.finetuning.distillation import Logits, divergence

if TYPE_CHECKING:
    from ecoflap.models.model import Model

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


class Objective(nn.Module):
    """The loss as a module of its own, which accelerate can wrap whatever the adapter calls."""

    def __init__(
        self,
        model: "Model",
        *,
        precision: str,
        teacher: "Model | None" = None,
        weight: float = 0.0,
    ):
        """Registers the model, but not its teacher, which is not trained.

        Args:
            model: The model that learns.
            precision: ``float32``, or ``bfloat16`` for autocast.
            teacher: The dense model.
            weight: Share of the distance from the teacher, 0 to 1; the rest is the task's loss.
        """
        super().__init__()
        self.module = model.module
        self.dtype, self.weight = AUTOCAST[precision], weight
        self.model = model
        self.teacher = teacher
        self.said = [Logits(model), Logits(teacher)] if teacher else []

    def task_loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the model's own loss on a batch, a float32 scalar."""
        kind = self.model.device.type
        with torch.autocast(kind, dtype=self.dtype, enabled=self.dtype is not None):
            return self.model.loss(batch).float()

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns what is made smaller on a batch, a float32 scalar."""
        loss = self.task_loss(batch)
        if self.teacher is None:
            return loss
        kind = self.model.device.type
        with torch.no_grad(), torch.autocast(kind, self.dtype, enabled=self.dtype is not None):
            self.teacher.loss(batch)
        student, teacher = (said.take() for said in self.said)
        distance = divergence(student, teacher, batch, shift=not self.model.reads_labels)
        return (1 - self.weight) * loss + self.weight * distance

    def close(self) -> None:
        """Takes off what listens to the models."""
        for said in self.said:
            said.stop()
