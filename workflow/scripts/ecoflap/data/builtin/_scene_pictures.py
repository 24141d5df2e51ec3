"""Scenes: one to three coloured shapes on a three by three grid, and their pictures.

A scene is described by its things alone. `draw` adds what no text speaks of: a pale
background, a small jitter and a size for each thing.
"""

import itertools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

PICTURE_SIZE = 64
SHAPES = ("circle", "rectangle", "triangle", "cross")
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "black": (0, 0, 0),
}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
CELLS = tuple(itertools.product(range(3), range(3)))

# Every shape misses two colours, every colour one shape: what remains shows each word often.
HELD_OUT = frozenset((colour, SHAPES[i % 4]) for i, colour in enumerate(COLOURS))
SEEN = tuple(pair for pair in itertools.product(COLOURS, SHAPES) if pair not in HELD_OUT)

_OVERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One coloured shape in a cell of the grid (row and column count from the top left)."""

    colour: str
    shape: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """The words for it, such as "red circle"."""
        return f"{self.colour} {self.shape}"


Scene = tuple[Thing, ...]


def make_scene(rng: random.Random, n_things: int, held_out: bool) -> Scene:
    """Draw a scene whose things differ from each other in colour or shape.

    Half of the scenes repeat one colour or one shape, so that counting has something to count.

    Args:
        rng: The source of randomness.
        n_things: How many things, 1 to 3.
        held_out: Take the combinations of colour and shape from `HELD_OUT`, else from `SEEN`.
    """
    pairs = sorted(HELD_OUT) if held_out else list(SEEN)
    common = rng.choice(("none", "none", "colour", "shape"))
    first = rng.choice(pairs)
    alike = {"none": pairs}
    alike["colour"] = [pair for pair in pairs if pair[0] == first[0]]
    alike["shape"] = [pair for pair in pairs if pair[1] == first[1]]
    # Two colours are held out for each shape and one shape for each colour: too few to repeat.
    pool = alike[common] if len(alike[common]) >= n_things else pairs
    cells = rng.sample(CELLS, n_things)
    return tuple(
        Thing(colour, shape, row, column)
        for (colour, shape), (row, column) in zip(rng.sample(pool, n_things), cells, strict=True)
    )


def draw(scene: Scene, name: str) -> Image.Image:
    """Draw a scene as a 64 x 64 RGB picture.

    Args:
        scene: What to draw.
        name: Names the picture: it alone decides background, jitter and sizes, so two scenes
            drawn under one name differ only where their things do.
    """
    rng = random.Random(f"picture {name}")
    side = PICTURE_SIZE * _OVERSAMPLING
    background = tuple(rng.randint(226, 255) for _ in range(3))
    image = Image.new("RGB", (side, side), background)
    canvas = ImageDraw.Draw(image)
    for thing in scene:
        jitter_x, jitter_y = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)
        half_width, half_height = rng.uniform(6.5, 9), rng.uniform(6.5, 9)
        x = ((thing.column + 0.5) * PICTURE_SIZE / 3 + jitter_x) * _OVERSAMPLING
        y = ((thing.row + 0.5) * PICTURE_SIZE / 3 + jitter_y) * _OVERSAMPLING
        _draw_thing(canvas, thing, (x, y), half_width * _OVERSAMPLING, half_height * _OVERSAMPLING)
    return image.reduce(_OVERSAMPLING)


def _draw_thing(
    canvas: ImageDraw.ImageDraw,
    thing: Thing,
    centre: tuple[float, float],
    half_width: float,
    half_height: float,
) -> None:
    x, y = centre
    w, h = half_width, half_height
    fill = COLOURS[thing.colour]
    if thing.shape == "circle":
        canvas.ellipse((x - w, y - w, x + w, y + w), fill=fill)
    elif thing.shape == "rectangle":
        canvas.rectangle((x - w, y - h, x + w, y + h), fill=fill)
    elif thing.shape == "triangle":
        canvas.polygon([(x, y - h), (x - w, y + h), (x + w, y + h)], fill=fill)
    else:
        canvas.rectangle((x - w, y - h / 3, x + w, y + h / 3), fill=fill)
        canvas.rectangle((x - w / 3, y - h, x + w / 3, y + h), fill=fill)
