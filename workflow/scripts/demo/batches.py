"""Training batches: pictures of both data sets with the texts that belong to them."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ecoflap.data.builtin import easy_vqa, scenes
from ecoflap.data.builtin._scene_language import (
    KINDS,
    RELATIONS,
    ask,
    caption_forms,
    related,
)
from ecoflap.data.builtin._scene_pictures import COLOURS, SEEN, SHAPES, Scene, draw
from ecoflap.data.picture import Picture

PROMPT = "question: {question} answer:"
QUESTIONS_PER_PICTURE = 3
RELATION_QUESTIONS = 4
OTHER_QUESTIONS = 2

_COLOUR_NUMBER = {colour: 1 + i for i, colour in enumerate(COLOURS)}
_SHAPE_NUMBER = {shape: 1 + i for i, shape in enumerate(SHAPES)}


@dataclass(frozen=True)
class Text:
    """What the encoder reads beside the picture, what the decoder writes, and which picture."""

    prompt: str
    target: str
    picture: int


def to_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Scale pictures to -1..1, as the shipped image processors do.

    Returns:
        [n_pictures, 3, height, width], float32.
    """
    array = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def draw_scenes(rng: random.Random, n: int) -> tuple[list[Scene], list[Image.Image]]:
    """Take n random scenes of the training split and draw them."""
    numbers = [rng.randrange(scenes.SIZES["train"]) for _ in range(n)]
    chosen = [scenes.scene_of("train", number) for number in numbers]
    names = [scenes.picture_name("train", number) for number in numbers]
    return chosen, [draw(scene, name) for scene, name in zip(chosen, names, strict=True)]


def contents_of_cells(chosen: Sequence[Scene]) -> torch.Tensor:
    """What each cell of the grid holds.

    Returns:
        [n_scenes, 9, 2]: colour and shape, counted from 1; 0 where the cell is empty.
    """
    contents = torch.zeros(len(chosen), 9, 2, dtype=torch.long)
    for i, scene in enumerate(chosen):
        for thing in scene:
            numbers = _COLOUR_NUMBER[thing.colour], _SHAPE_NUMBER[thing.shape]
            contents[i, 3 * thing.row + thing.column] = torch.tensor(numbers)
    return contents


def neighbours_of_cells(chosen: Sequence[Scene]) -> torch.Tensor:
    """What lies on each side of the things in the cells of the grid.

    Returns:
        [n_scenes, 9, n_relations * (n_colours + n_shapes)]: 1 where a thing of that colour or
        shape lies there, seen from the thing in the cell; all 0 for empty cells.
    """
    n_kinds = len(COLOURS) + len(SHAPES)
    sides = torch.zeros(len(chosen), 9, len(RELATIONS), n_kinds)
    for i, scene in enumerate(chosen):
        for first, second in itertools.permutations(scene, 2):
            cell = 3 * second.row + second.column
            for side, relation in enumerate(RELATIONS):
                if related(first, relation, second):
                    colour = _COLOUR_NUMBER[first.colour] - 1
                    shape = len(COLOURS) + _SHAPE_NUMBER[first.shape] - 1
                    sides[i, cell, side, [colour, shape]] = 1
    return sides.flatten(2)


def caption_of(scene: Scene, rng: random.Random) -> str:
    """One caption of a scene, every form equally often."""
    return rng.choice(rng.choice(list(caption_forms(scene).values())))


def caption_texts(chosen: Sequence[Scene], rng: random.Random) -> list[Text]:
    """One caption for each scene; half of them continue a prefix that the encoder reads."""
    texts = []
    for i, scene in enumerate(chosen):
        words = caption_of(scene, rng).split()
        n_prefix = rng.randrange(1, len(words)) if rng.random() < 0.5 else 0
        texts.append(Text(" ".join(words[:n_prefix]), " ".join(words[n_prefix:]), i))
    return texts


def question_texts(chosen: Sequence[Scene], rng: random.Random) -> list[Text]:
    """Questions about scenes, most of them about relations where there are any."""
    texts = []
    for i, scene in enumerate(chosen):
        kinds = ["relation"] * RELATION_QUESTIONS + rng.sample(KINDS[:-1], OTHER_QUESTIONS)
        questions = [q for kind in kinds if (q := ask(scene, kind, rng, SEEN))]
        texts += [Text(PROMPT.format(question=q.text), q.answer, i) for q in questions]
    return texts


class EasyVqaPool:
    """The training pictures and questions of easy-VQA; pictures are flipped and turned.

    None of its questions speaks of places, so every answer survives.
    """

    def __init__(self) -> None:
        """Read the whole training split, 3,600 pictures."""
        rows, paths = easy_vqa.questions_of("train")
        self.pictures = {p: Picture(str(p), path).open() for p, path in sorted(paths.items())}
        self.questions: dict[int, list[tuple[str, str]]] = {p: [] for p in self.pictures}
        for _, question, answer, picture in rows:
            self.questions[picture].append((question, answer))

    def sample(self, rng: random.Random, n: int) -> tuple[list[Image.Image], list[Text]]:
        """Take n pictures with their questions; the texts count pictures from 0."""
        chosen = rng.sample(sorted(self.pictures), n)
        images = [self.pictures[p].transpose(rng.choice(list(Image.Transpose))) for p in chosen]
        texts = [
            Text(PROMPT.format(question=question), answer, i)
            for i, p in enumerate(chosen)
            for question, answer in rng.choices(self.questions[p], k=QUESTIONS_PER_PICTURE)
        ]
        return images, texts
