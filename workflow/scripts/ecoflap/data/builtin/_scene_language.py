"""What can be said about a scene: captions, their meaning, and questions.

The meaning of a caption is a set of atoms, such as {"red circle", "red circle left of blue
cross"}; a scene makes a set of atoms true. A caption holds for a picture when its atoms are
among those of the scene, so truth is one subset test.
"""

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ecoflap.data.builtin._scene_pictures import (
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    Scene,
    Thing,
)

RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("zero", "one", "two", "three")
PLURALS = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}
KINDS = ("colour", "shape", "count", "existence", "relation")

_NAME = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
_PLACES = tuple(f"at {row} {column}" for row, column in itertools.product(ROWS, COLUMNS))
_PLACE = "|".join(_PLACES)
_RELATION = "|".join(RELATIONS)
_SHORT = (
    {f"a {shape}": shape for shape in SHAPES}
    | {f"a {colour} shape": colour for colour in COLOURS}
    | {f"a shape {place}": place for place in _PLACES}
    | {"one shape": "one", "two shapes": "two", "three shapes": "three"}
)


@dataclass(frozen=True)
class Question:
    """A question about a scene; `topic` is its kind, for relations with the relation."""

    kind: str
    topic: str
    text: str
    answer: str


def related(first: Thing, relation: str, second: Thing) -> bool:
    """Whether "first relation second" is true."""
    return {
        "left of": first.column < second.column,
        "right of": first.column > second.column,
        "above": first.row < second.row,
        "below": first.row > second.row,
    }[relation]


def facts(scene: Scene) -> frozenset[str]:
    """All atoms that are true of a scene."""
    atoms = {NUMBERS[len(scene)]}
    for thing in scene:
        place = place_of(thing)
        atoms |= {thing.colour, thing.shape, thing.name, place, f"{thing.name} {place}"}
    for first, second in itertools.permutations(scene, 2):
        atoms |= {f"{first.name} {r} {second.name}" for r in RELATIONS if related(first, r, second)}
    return frozenset(atoms)


def place_of(thing: Thing) -> str:
    """Where a thing is, such as "at top left"."""
    return f"at {ROWS[thing.row]} {COLUMNS[thing.column]}"


def meaning(caption: str) -> frozenset[str]:
    """Read a caption, with or without "there is" or "a picture of" before it.

    Returns:
        Its atoms.

    Raises:
        ValueError: The text is not in the grammar.
    """
    text = re.sub("^(there is|a picture of) ", "", caption)
    if text in _SHORT:
        return frozenset([_SHORT[text]])
    if re.fullmatch(rf"a {_NAME}( and a {_NAME})*", text):
        return frozenset(re.findall(_NAME, text))
    if re.fullmatch(rf"a {_NAME} ({_PLACE})( and a {_NAME} ({_PLACE}))*", text):
        return frozenset(re.findall(rf"{_NAME} (?:{_PLACE})", text))
    if found := re.fullmatch(rf"a ({_NAME}) ((?:{_RELATION}) .*)", text):
        subject, rest = found.groups()
        said = rest.split(" and ")
        found = [re.fullmatch(rf"({_RELATION}) a ({_NAME})", part) for part in said]
        parts = [part for part in found if part]
        if len(parts) == len(said):
            return frozenset(f"{subject} {part[1]} {part[2]}" for part in parts)
    raise ValueError(
        f"cannot read the caption {caption!r}: allowed are the texts that caption_forms and "
        "short_captions make"
    )


def holds(caption: str, scene: Scene) -> bool:
    """Whether a caption is true of a scene."""
    return meaning(caption) <= facts(scene)


def caption_forms(scene: Scene) -> dict[str, list[str]]:
    """All complete captions of a scene, by form.

    Returns:
        "list" names the things in any order, "place" says where each is (up to two things),
        "relation" says where the first is, seen from each of the others (two things or more).
    """
    orders = list(itertools.permutations(scene))
    forms = {"list": [" and ".join(f"a {thing.name}" for thing in order) for order in orders]}
    if len(scene) == 1:
        forms["list"].append(f"there is a {scene[0].name}")
    if len(scene) < 3:
        forms["place"] = [
            " and ".join(f"a {thing.name} {place_of(thing)}" for thing in order) for order in orders
        ]
    if len(scene) > 1:
        forms["relation"] = [text for first, *rest in orders for text in _relate(first, rest)]
    return forms


def _relate(first: Thing, rest: Sequence[Thing]) -> Iterator[str]:
    choices = [[r for r in RELATIONS if related(first, r, other)] for other in rest]
    for relations in itertools.product(*choices):
        parts = (f"{r} a {other.name}" for r, other in zip(relations, rest, strict=True))
        yield f"a {first.name} {' and '.join(parts)}"


def short_captions(scene: Scene) -> list[str]:
    """All true captions of one attribute, such as "a red shape" or "two shapes"."""
    known = facts(scene)
    return [text for text, atom in _SHORT.items() if atom in known]


def one_word_changes(caption: str) -> list[list[str]]:
    """Captions that differ from a complete one in one word, true or not.

    Returns:
        One list of captions for each word that can be changed.
    """
    words = caption.split()
    changes = []
    for i, word in enumerate(words):
        relation = words[i + 1 : i + 2] == ["of"]
        others = [other for other in _word_class(word, relation) if other != word]
        changes.append([" ".join([*words[:i], other, *words[i + 1 :]]) for other in others])
    return [texts for texts in changes if texts]


def _word_class(word: str, relation: bool) -> Sequence[str]:
    if relation:
        return ("left", "right")
    classes = (tuple(COLOURS), SHAPES, ROWS, COLUMNS, ("above", "below"))
    return next((words for words in classes if word in words), ())


def names_in(caption: str) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that a caption speaks of."""
    return [tuple(name.split()) for name in re.findall(_NAME, caption)]


def ask(
    scene: Scene, kind: str, rng: random.Random, pairs: Sequence[tuple[str, str]]
) -> Question | None:
    """Make a question of one kind.

    Args:
        scene: The scene asked about.
        kind: One of `KINDS`.
        rng: The source of randomness.
        pairs: The combinations of colour and shape that may be named.

    Returns:
        The question, or None where the scene allows none of this kind.
    """
    makers = {
        "colour": _ask_colour,
        "shape": _ask_shape,
        "count": _ask_count,
        "existence": _ask_existence,
        "relation": _ask_relation,
    }
    return makers[kind](scene, rng, pairs)


def _ask_colour(scene: Scene, rng: random.Random, _pairs: Sequence) -> Question | None:
    shapes = [thing.shape for thing in scene]
    unique = [thing for thing in scene if shapes.count(thing.shape) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    return Question("colour", "colour", f"what color is the {thing.shape}?", thing.colour)


def _ask_shape(scene: Scene, rng: random.Random, _pairs: Sequence) -> Question | None:
    colours = [thing.colour for thing in scene]
    unique = [thing for thing in scene if colours.count(thing.colour) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    return Question("shape", "shape", f"what is the {thing.colour} shape?", thing.shape)


def _ask_count(scene: Scene, rng: random.Random, _pairs: Sequence) -> Question:
    counts = {"shapes": len(scene)}
    counts |= {PLURALS[s]: sum(thing.shape == s for thing in scene) for s in SHAPES}
    counts |= {f"{c} shapes": sum(thing.colour == c for thing in scene) for c in COLOURS}
    answer = rng.choice(sorted(set(counts.values())))
    what = rng.choice([text for text, count in counts.items() if count == answer])
    return Question("count", "count", f"how many {what} are there?", NUMBERS[answer])


def _ask_existence(scene: Scene, rng: random.Random, pairs: Sequence[tuple[str, str]]) -> Question:
    present = [(thing.colour, thing.shape) for thing in scene]
    if rng.random() < 0.5:
        return _existence(rng.choice(present), "yes")
    absent = [pair for pair in pairs if pair not in present]
    close = [p for p in absent if any(p[0] == q[0] or p[1] == q[1] for q in present)]
    return _existence(rng.choice(close if rng.random() < 0.75 else absent), "no")


def _existence(pair: tuple[str, str], answer: str) -> Question:
    return Question("existence", "existence", f"is there a {' '.join(pair)}?", answer)


def _ask_relation(scene: Scene, rng: random.Random, _pairs: Sequence) -> Question | None:
    """Half yes or no; half (of three things) asks which one of the two others it is."""
    if len(scene) == 1:
        return None
    pairs = list(itertools.permutations(scene, 2))
    if len(scene) == 3 and rng.random() < 0.5 and (question := _ask_which(scene, rng)):
        return question
    truth = rng.random() < 0.5
    relation = rng.choice(
        [r for r in RELATIONS if any(related(a, r, b) == truth for a, b in pairs)]
    )
    first, second = rng.choice([(a, b) for a, b in pairs if related(a, relation, b) == truth])
    text = f"is the {first.name} {relation} the {second.name}?"
    return Question("relation", f"relation-{relation.split()[0]}", text, "yes" if truth else "no")


def _ask_which(scene: Scene, rng: random.Random) -> Question | None:
    options = []
    for relation, anchor in itertools.product(RELATIONS, scene):
        found = [thing for thing in scene if related(thing, relation, anchor)]
        if len(found) == 1:
            options.append((relation, anchor, found[0]))
    if not options:
        return None
    relation, anchor, answer = rng.choice(options)
    text = f"what is {relation} the {anchor.name}?"
    return Question("relation", f"which-{relation.split()[0]}", text, answer.name)
