"""The data set `scenes`: pictures of coloured shapes with questions, captions and distractors.

Nothing is stored. Example i of a split is made from its name alone ("scenes/test/17"), so it
never depends on how many are asked for. Pictures with 3 k + n - 1 for a number hold n things.
The split "ood" shows combinations of colour and shape that no other split shows or names; the
other splits draw from the same small world, with pictures of their own (jitter, background).
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ecoflap.data.builtin._scene_language import (
    KINDS,
    RELATIONS,
    ask,
    caption_forms,
    facts,
    holds,
    meaning,
    names_in,
    one_word_changes,
)
from ecoflap.data.builtin._scene_pictures import (
    CELLS,
    COLOURS,
    COLUMNS,
    ROWS,
    SEEN,
    SHAPES,
    Scene,
    draw,
    make_scene,
)
from ecoflap.data.picture import Picture

# Pictures of each split; a view leaves out those that it cannot ask about.
SIZES = {"train": 40_000, "validation": 2_000, "calibration": 2_000, "test": 2_000, "ood": 2_000}
SPLITS = tuple(SIZES)
PROMPTS = {
    "shape": "a picture of a {label}",
    "colour": "a picture of a {label} shape",
    "count": "a picture of {label}",
    "position": "a picture of a shape at {label}",
    "relation": "a picture of a {label}",
}
VIEWS = ("vqa", "captions", "retrieval", *PROMPTS)

N_REFERENCES = 5
N_DISTRACTORS = 7

# Relations come twice because pictures with one thing have none.
_KIND_CYCLE = (*KINDS, "relation")
_CLASSES = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "count": ("one shape", "two shapes", "three shapes"),
    "position": tuple(f"{row} {column}" for row, column in itertools.product(ROWS, COLUMNS)),
}

Example = dict[str, Any]


def load(*, split: str, view: str, limit: int | None = None) -> list[Example]:
    """Load the first examples of a view.

    Args:
        split: One of `SPLITS`.
        view: One of `VIEWS`.
        limit: How many examples; all of the split when None.

    Returns:
        Examples with a unique "id" and an "image" (a `Picture` that opens as 64 x 64 RGB), and by
        view:
        "vqa" has "question", "answers", "kind"; "captions" has "captions"; "retrieval" has
        "caption", "other_captions" and "other_images" (seven each, all false); the views in
        `PROMPTS` have "label" and "classes", of which only the label is true.

    Raises:
        ValueError: Unknown split or view.
    """
    for what, value, allowed in (("split", split, SPLITS), ("view", view, VIEWS)):
        if value not in allowed:
            raise ValueError(
                f"unknown {what} {value!r} of scenes: choose from {', '.join(allowed)}"
            )
    return list(itertools.islice(_examples(split, view), limit))


def scene_of(split: str, index: int) -> Scene:
    """The scene of one picture of a split."""
    rng = random.Random(f"scenes/{split}/{index}")
    return make_scene(rng, n_things=1 + index % 3, held_out=split == "ood")


def picture_name(split: str, index: int) -> str:
    """The name that decides how a picture is drawn, and that ids start with."""
    return f"scenes/{split}/{index}"


def _examples(split: str, view: str) -> Iterator[Example]:
    make = _MAKERS.get(view, _make_class)
    # A picture may hold what was held out only where all of it is new.
    pairs = tuple(itertools.product(COLOURS, SHAPES)) if split == "ood" else SEEN
    for index in range(SIZES[split]):
        name = picture_name(split, index)
        scene = scene_of(split, index)
        rng = random.Random(f"{name}/{view}")
        example = make(scene, index=index, view=view, rng=rng, pairs=pairs, name=name)
        if example is not None:
            image = Picture(name, partial(draw, scene, name))
            yield {"id": f"{name}/{example.pop('topic', view)}", "image": image, **example}


def _make_vqa(
    scene: Scene, *, index: int, rng: random.Random, pairs: Sequence, **_
) -> Example | None:
    kind = _KIND_CYCLE[index // 3 % len(_KIND_CYCLE)]
    question = ask(scene, kind, rng, pairs)
    return question and {
        "topic": question.topic,
        "question": question.text,
        "answers": [question.answer],
        "kind": question.kind,
    }


def _make_captions(scene: Scene, *, rng: random.Random, **_) -> Example:
    return {"captions": _take_turns(caption_forms(scene).values(), N_REFERENCES, rng)}


def _make_retrieval(
    scene: Scene, *, rng: random.Random, pairs: Sequence, name: str, **_
) -> Example:
    caption = rng.choice(rng.choice(list(caption_forms(scene).values())))
    texts = [
        [t for t in group if not holds(t, scene) and set(names_in(t)) <= set(pairs)]
        for group in one_word_changes(caption)
    ]
    wanted = meaning(caption)
    scenes = [
        [other for other in group if not wanted <= facts(other)]
        for group in changed_scenes(scene, pairs)
    ]
    return {
        "caption": caption,
        "other_captions": _take_turns(texts, N_DISTRACTORS, rng),
        "other_images": [draw(s, name) for s in _take_turns(scenes, N_DISTRACTORS, rng)],
    }


def changed_scenes(scene: Scene, pairs: Sequence[tuple[str, str]]) -> list[list[Scene]]:
    """Scenes with one colour, shape or placement changed: a group for each thing to change."""
    names = {(thing.colour, thing.shape) for thing in scene}
    cells = {(thing.row, thing.column) for thing in scene}
    groups = []
    for i, thing in enumerate(scene):
        colours = [replace(thing, colour=colour) for colour in COLOURS]
        shapes = [replace(thing, shape=shape) for shape in SHAPES]
        moves = [replace(thing, row=r, column=c) for r, c in CELLS if (r, c) not in cells]
        for others in (colours, shapes):
            new = [t for t in others if (t.colour, t.shape) in set(pairs) - names]
            groups.append([(*scene[:i], t, *scene[i + 1 :]) for t in new])
        groups.append([(*scene[:i], t, *scene[i + 1 :]) for t in moves])
    groups.append([_swapped(scene, i, j) for i, j in itertools.combinations(range(len(scene)), 2)])
    return groups


def _swapped(scene: Scene, i: int, j: int) -> Scene:
    things = list(scene)
    things[i] = replace(scene[i], row=scene[j].row, column=scene[j].column)
    things[j] = replace(scene[j], row=scene[i].row, column=scene[i].column)
    return tuple(things)


def _take_turns(groups: Iterable[Sequence], n: int, rng: random.Random) -> list:
    """Take up to n distinct items, one from each group in turn, so that no kind prevails."""
    queues = [rng.sample(list(group), len(group)) for group in groups]
    rng.shuffle(queues)
    rounds = itertools.zip_longest(*queues)
    items = [item for items in rounds for item in items if item is not None]
    return list(dict.fromkeys(items))[:n]


def _make_class(scene: Scene, *, view: str, rng: random.Random, **_) -> Example | None:
    """A zero-shot question, for scenes of which exactly one class is true."""
    if view == "relation":
        if len(scene) == 1:
            return None
        first, second = rng.sample(scene, 2)
        classes = [f"{first.name} {relation} a {second.name}" for relation in RELATIONS]
    else:
        classes = list(_CLASSES[view])
    true = [label for label in classes if holds(PROMPTS[view].format(label=label), scene)]
    return {"label": true[0], "classes": classes} if len(true) == 1 else None


_MAKERS = {"vqa": _make_vqa, "captions": _make_captions, "retrieval": _make_retrieval}
