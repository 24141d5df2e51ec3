"""Pictures on their way into a model."""

from collections.abc import Sequence
from typing import Any

import torch

CHUNK = 64  # pictures or texts per forward where a model compares many with many


def distinct(images: Sequence[Any]) -> tuple[list, torch.Tensor]:
    """Returns each picture once, so that it is prepared once, and the row of each in that list.

    Args:
        images: PIL images; the same object may stand there often.

    Returns:
        The pictures, and int64 [n_images].
    """
    unique = {id(image): image for image in images}
    rows = {key: row for row, key in enumerate(unique)}
    return list(unique.values()), torch.tensor([rows[id(image)] for image in images])
