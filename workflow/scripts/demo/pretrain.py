"""Stage 1: teach a vision tower what is where, before any text.

Learning objects and language at once from captions stays at the prior for minutes on this
scale; labels for each patch get the tower past that in two.
"""

import logging
import random
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from demo.batches import contents_of_cells, draw_scenes, neighbours_of_cells, to_pixels
from demo.models import PATCH_SIZE, WIDTH
from demo.training import Optimizer
from ecoflap.data.builtin._scene_language import RELATIONS
from ecoflap.data.builtin._scene_pictures import COLOURS, PICTURE_SIZE, SHAPES

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
PEAK_RATE = 1.5e-3
N_CELLS = 9
SIDES_WEIGHT = 4.0  # most sides are empty, so their mean loss is small


def cell_of_patches() -> torch.Tensor:
    """The cell of the grid in which the centre of each patch lies, [n_patches]."""
    per_side = PICTURE_SIZE // PATCH_SIZE
    cell = ((torch.arange(per_side) + 0.5) * 3 / per_side).long()
    return (3 * cell[:, None] + cell[None, :]).flatten()


class ContentHeads(nn.Module):
    """Linear readings of what is here and what is beside it, used in this stage only."""

    def __init__(self) -> None:
        """Make heads for colour, shape (class 0 is "nothing here") and the four sides."""
        super().__init__()
        self.colour = nn.Linear(WIDTH, 1 + len(COLOURS))
        self.shape = nn.Linear(WIDTH, 1 + len(SHAPES))
        self.sides = nn.Linear(WIDTH, len(RELATIONS) * (len(COLOURS) + len(SHAPES)))

    def loss(
        self, features: torch.Tensor, contents: torch.Tensor, sides: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of features [B, K, D] against contents [B, K, 2] and sides [B, K, S]."""
        colour, shape = contents.flatten(0, 1).unbind(-1)
        flat, sides = features.flatten(0, 1), sides.flatten(0, 1)
        here = shape > 0
        beside = functional.binary_cross_entropy_with_logits(
            self.sides(flat[here]).float(), sides[here]
        )
        return (
            functional.cross_entropy(self.colour(flat), colour)
            + functional.cross_entropy(self.shape(flat), shape)
            + SIDES_WEIGHT * beside
        )


def pretrain_vision(
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    parameters: list[nn.Parameter],
    *,
    n_steps: int,
    seed: int,
) -> float:
    """Train features to tell the content of their part of the picture and what lies beside it.

    The sides put what a relation needs into the features of one thing.

    Args:
        encode: Pixels -> patch features [B, 64, D] and cell features [B, 9, D], read from all
            that later stages see of the picture. Both learn the colour and shape in their cell;
            without the second, places never get past the vision tower.
        parameters: What to train beside the heads.
        n_steps: How many batches.
        seed: Decides the pictures.

    Returns:
        The last loss.
    """
    rng = random.Random(f"pretrain {seed}")
    cells = cell_of_patches()
    patch_heads, cell_heads = ContentHeads(), ContentHeads()
    heads = [*patch_heads.parameters(), *cell_heads.parameters()]
    optimizer = Optimizer({PEAK_RATE: [*parameters, *heads]}, n_steps)
    for step in tqdm(range(n_steps), desc="stage 1", disable=None):
        chosen, images = draw_scenes(rng, BATCH_SIZE)
        contents, sides = contents_of_cells(chosen), neighbours_of_cells(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            of_patches, of_cells = encode(to_pixels(images))
            loss = patch_heads.loss(of_patches, contents[:, cells], sides[:, cells])
            loss = loss + cell_heads.loss(of_cells, contents, sides)
        optimizer.step(loss)
        if step % 100 == 0:
            logger.info("stage 1: step %d of %d, loss %.4f", step, n_steps, loss.item())
    return loss.item()
