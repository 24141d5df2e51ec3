"""Which weights pruning removed, and that they stay removed."""

from typing import TYPE_CHECKING

import torch

from ecoflap.errors import PruningError
from ecoflap.masks import unpack_mask

if TYPE_CHECKING:
    from ecoflap.models.model import Model


def removed(model: "Model") -> dict[str, torch.Tensor]:
    """Returns which weights of each prunable matrix are gone.

    Args:
        model: A pruned model. Where its ``masks`` say nothing (criteria that change weights store
            no masks), what is zero is gone.

    Returns:
        By name of the matrix, bool [n_out, n_in] on the model's device, True where a weight went.

    Raises:
        ArtifactError: if a mask does not fit its matrix.
    """
    found = {}
    for matrix in model.matrices():
        weight = matrix.module.weight.detach()
        if matrix.name in model.masks:
            mask = unpack_mask(model.masks[matrix.name], tuple(weight.shape))
            found[matrix.name] = mask.to(weight.device)
        else:
            found[matrix.name] = weight == 0
    return found


@torch.no_grad()
def apply(model: "Model", masks: dict[str, torch.Tensor]) -> None:
    """Sets what is gone to zero again: momentum and weight decay know no mask."""
    for matrix in model.matrices():
        matrix.module.weight.masked_fill_(masks[matrix.name], 0)


def check(model: "Model", masks: dict[str, torch.Tensor]) -> None:
    """Refuses a model in which a weight that was gone is anything but a positive zero.

    Raises:
        PruningError: naming the first such matrix.
    """
    for matrix in model.matrices():
        kept = matrix.module.weight.detach()[masks[matrix.name]]
        # Compared with a zero's own bytes, so that -0.0 is told from 0.0.
        back = int((kept.view(torch.uint8) != 0).sum()) if kept.numel() else 0
        if back:
            raise PruningError(
                f"weights of {matrix.name} that were pruned are no zeros ({back} bytes)",
                allowed="exact zeros wherever the mask has one",
                fix="This is a fault of the program: please report it.",
            )
