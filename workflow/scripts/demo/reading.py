"""What a question's words mean in a picture, taught to the encoder directly.

A yes or no says too little about two names and a relation: with answers alone, relations stay at
chance for thousands of steps. Linear heads on the encoder's output, used in training only, ask
each name for its place, each thing for its mention, and each relation for its truth.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from demo.models import WIDTH
from demo.pretrain import N_CELLS
from ecoflap.data.builtin._scene_language import RELATIONS
from ecoflap.data.builtin._scene_pictures import COLOURS, SHAPES, Scene

NOWHERE = N_CELLS
N_ROLES = 3  # not named, named first, named second
_RELATION_WORDS = frozenset(relation.split()[0] for relation in RELATIONS)
_IGNORED = -100


class ReadingHeads(nn.Module):
    """Reads what the encoder has understood of a question about a scene."""

    def __init__(self) -> None:
        """Make heads for the places and truth of words and the roles of cells."""
        super().__init__()
        self.place = nn.Linear(WIDTH, N_CELLS + 1)
        self.truth = nn.Linear(WIDTH, 2)
        self.role = nn.Linear(WIDTH, N_ROLES)

    def loss(
        self,
        words: torch.Tensor,
        cells: torch.Tensor,
        tokens: Sequence[Sequence[str]],
        answers: Sequence[str],
        scenes: Sequence[Scene],
    ) -> torch.Tensor:
        """The sum of the three mean losses.

        Args:
            words: The encoder's output at the words of each question, [T, P, D].
            cells: Its output at the queries that show the nine cells, [T, 9, D].
            tokens: The words of each question.
            answers: Their answers; only "yes" and "no" tell the truth of a relation.
            scenes: What each question is about.
        """
        of_words = [word_labels(*item) for item in zip(tokens, answers, scenes, strict=True)]
        place, truth = torch.tensor(of_words).unbind(1)  # [T, P]
        role = torch.tensor([cell_labels(*item) for item in zip(tokens, scenes, strict=True)])
        return (
            _loss_where_known(self.place, words, place)
            + _loss_where_known(self.truth, words, truth)
            + _loss_where_known(self.role, cells, role)
        )


def names_of(tokens: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Find where a question names a thing: position of the shape -> (colour, shape)."""
    pairs = enumerate(zip(tokens, tokens[1:], strict=False), start=1)
    return {i: pair for i, pair in pairs if pair[0] in COLOURS and pair[1] in SHAPES}


def word_labels(tokens: Sequence[str], answer: str, scene: Scene) -> tuple[list[int], list[int]]:
    """What each word should know: the cell of the thing it names, the truth of its relation.

    Returns:
        Two labels for each word: a cell or `NOWHERE`; 1 or 0. -100 where there is no label.
    """
    cells = {(thing.colour, thing.shape): 3 * thing.row + thing.column for thing in scene}
    names = names_of(tokens)
    place = [cells.get(names[i], NOWHERE) if i in names else _IGNORED for i in range(len(tokens))]
    true = {"yes": 1, "no": 0}.get(answer, _IGNORED)
    truth = [true if token in _RELATION_WORDS else _IGNORED for token in tokens]
    return place, truth


def cell_labels(tokens: Sequence[str], scene: Scene) -> list[int]:
    """What each cell should know: whether its thing is named first (1), second (2) or not (0).

    Returns:
        A role for each of the nine cells; -100 for empty ones.
    """
    order = {name: number for number, name in enumerate(names_of(tokens).values(), start=1)}
    roles = [_IGNORED] * N_CELLS
    for thing in scene:
        roles[3 * thing.row + thing.column] = order.get((thing.colour, thing.shape), 0)
    return roles


def _loss_where_known(
    head: nn.Linear, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    known = labels != _IGNORED
    return functional.cross_entropy(head(features[known]).float(), labels[known])
