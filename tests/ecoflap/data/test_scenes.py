"""The scenes data set; expected answers come from reading the things one by one, below."""

import itertools
import random
import re

import pytest

from ecoflap.data.builtin import scenes
from ecoflap.data.builtin._scene_language import (
    ask,
    caption_forms,
    holds,
    meaning,
    one_word_changes,
    short_captions,
)
from ecoflap.data.builtin._scene_pictures import (
    COLOURS,
    COLUMNS,
    HELD_OUT,
    ROWS,
    SEEN,
    SHAPES,
    Thing,
    draw,
)

WORDS_OF_NUMBERS = ["zero", "one", "two", "three"]
N = 240


def scene_of(example):
    """The scene behind an example, found through its id."""
    _, split, index, _ = example["id"].split("/")
    return scenes.scene_of(split, int(index))


def is_beside(first, relation, second):
    """Compare places by hand."""
    if relation in ("left of", "right of"):
        step = second.column - first.column
        return step > 0 if relation == "left of" else step < 0
    step = second.row - first.row
    return step > 0 if relation == "above" else step < 0


def find(scene, name):
    """The things of a scene with this colour and shape."""
    colour, shape = name.split()
    return [thing for thing in scene if thing.colour == colour and thing.shape == shape]


def is_true(caption, scene):
    """Read a caption clause by clause with `in` and `split` only, things one by one."""
    text = caption.removeprefix("there is ").removeprefix("a picture of ")
    clauses = text.split(" and ")
    subject = " ".join(clauses[0].split()[1:3])
    for clause in clauses:
        words = clause.split()
        relation = next((r for r in ("left of", "right of", "above", "below") if r in clause), None)
        if relation:
            other = " ".join(words[-2:])
            if not any(
                is_beside(a, relation, b)
                for a in find(scene, subject)
                for b in find(scene, other)
                if a is not b
            ):
                return False
            continue
        found = find(scene, " ".join(words[1:3]))
        if "at" in words:
            row, column = words[-2:]
            found = [t for t in found if ROWS[t.row] == row and COLUMNS[t.column] == column]
        if not found:
            return False
    return True


def answer_by_hand(question, scene):
    """Answer a question by looking at every thing."""
    if found := re.fullmatch(r"what color is the (\w+)\?", question):
        (colour,) = {thing.colour for thing in scene if thing.shape == found[1]}
        return colour
    if found := re.fullmatch(r"what is the (\w+) shape\?", question):
        (shape,) = {thing.shape for thing in scene if thing.colour == found[1]}
        return shape
    if found := re.fullmatch(r"how many (\w+) are there\?", question):
        shapes = {"circles", "rectangles", "triangles", "crosses"}
        same = [t for t in scene if t.shape + ("es" if t.shape == "cross" else "s") == found[1]]
        return WORDS_OF_NUMBERS[len(same) if found[1] in shapes else len(scene)]
    if found := re.fullmatch(r"how many (\w+) shapes are there\?", question):
        return WORDS_OF_NUMBERS[sum(thing.colour == found[1] for thing in scene)]
    if found := re.fullmatch(r"is there a (\w+ \w+)\?", question):
        return "yes" if find(scene, found[1]) else "no"
    if found := re.fullmatch(r"is the (\w+ \w+) (.*) the (\w+ \w+)\?", question):
        (first,), (second,) = find(scene, found[1]), find(scene, found[3])
        return "yes" if is_beside(first, found[2], second) else "no"
    found = re.fullmatch(r"what is (.*) the (\w+ \w+)\?", question)
    (anchor,) = find(scene, found[2])
    (answer,) = [t for t in scene if t is not anchor and is_beside(t, found[1], anchor)]
    return f"{answer.colour} {answer.shape}"


@pytest.mark.parametrize("view", scenes.VIEWS)
def test_same_call_same_examples_and_limit_takes_the_first(view):
    few = scenes.load(split="test", view=view, limit=5)
    many = scenes.load(split="test", view=view, limit=9)
    assert len(few) == 5
    assert len(many) == 9
    for one, other in zip(few, many, strict=False):
        assert one["image"].open().tobytes() == other["image"].open().tobytes()
        texts = [{k: v for k, v in e.items() if "image" not in k} for e in (one, other)]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("view", scenes.VIEWS)
def test_ids_are_unique_and_images_are_small_rgb(view):
    examples = scenes.load(split="validation", view=view, limit=N)
    assert len({example["id"] for example in examples}) == len(examples)
    assert {(i.size, i.mode) for i in (e["image"].open() for e in examples)} == {((64, 64), "RGB")}


def test_scenes_do_not_change_between_versions():
    # Written down when the shipped models were trained: they know these scenes.
    assert scenes.scene_of("test", 0) == (Thing("blue", "rectangle", 2, 2),)


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_answers_are_those_read_by_hand(split):
    examples = scenes.load(split=split, view="vqa", limit=3 * N)
    for e in examples:
        assert e["answers"] == [answer_by_hand(e["question"], scene_of(e))], e["id"]


def test_kinds_and_answers_are_balanced():
    examples = scenes.load(split="validation", view="vqa")
    share = {
        kind: sum(e["kind"] == kind for e in examples) / len(examples)
        for kind in ("colour", "shape", "count", "existence", "relation")
    }
    assert min(share.values()) > 0.14
    assert max(share.values()) < 0.3
    for kind in ("existence", "relation"):
        answers = [e["answers"][0] for e in examples if e["kind"] == kind]
        yes, no = answers.count("yes"), answers.count("no")
        # Four standard deviations of a fair coin.
        assert abs(yes - no) < 4 * (yes + no) ** 0.5


def test_relations_cannot_be_answered_from_what_is_there():
    """The same question about the same things has another answer when two change places."""
    rng = random.Random(0)
    changed = 0
    for index in range(2, 3 * N, 3):
        first, second, third = scene = scenes.scene_of("train", index)
        question = ask(scene, "relation", rng, SEEN)
        answers = {question.answer}
        for cells in itertools.permutations([(t.row, t.column) for t in scene]):
            moved = [Thing(t.colour, t.shape, *cell) for t, cell in zip(scene, cells, strict=True)]
            try:
                answers.add(answer_by_hand(question.text, moved))
            except ValueError:
                continue  # more or fewer than one thing is there after the move
        changed += len(answers) > 1
    assert changed == N


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_captions_are_true_and_complete(split):
    for e in scenes.load(split=split, view="captions", limit=N):
        scene = scene_of(e)
        assert len(set(e["captions"])) == len(e["captions"]) >= 3
        for caption in e["captions"]:
            assert is_true(caption, scene), (e["id"], caption)
            assert all(f"{thing.colour} {thing.shape}" in caption for thing in scene)


def test_meaning_agrees_with_reading_by_hand_on_true_and_changed_captions():
    for index in range(N):
        scene = scenes.scene_of("train", index)
        for caption in itertools.chain(*caption_forms(scene).values()):
            assert holds(caption, scene)
            for changed in itertools.chain(*one_word_changes(caption)):
                assert holds(changed, scene) == is_true(changed, scene), changed


def test_meaning_round_trip():
    """Two captions that mean the same are the same up to the order of what they list."""
    for index in range(N):
        for form, captions in caption_forms(scenes.scene_of("train", index)).items():
            for one, other in itertools.combinations(captions, 2):
                same_words = sorted(one.removeprefix("there is ").split()) == sorted(
                    other.removeprefix("there is ").split()
                )
                assert (meaning(one) == meaning(other)) <= same_words, (form, one, other)


def test_meaning_refuses_other_texts():
    with pytest.raises(ValueError, match="a red dog"):
        meaning("a red dog")


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_distractors_are_false_one_word_away_and_one_thing_away(split):
    for e in scenes.load(split=split, view="retrieval", limit=N):
        scene = scene_of(e)
        words = e["caption"].split()
        assert is_true(e["caption"], scene)
        assert len(set(e["other_captions"])) == len(e["other_images"]) == 7
        for other in e["other_captions"]:
            assert not is_true(other, scene), (e["id"], other)
            assert sum(a != b for a, b in zip(words, other.split(), strict=True)) == 1
        pictures = {image.tobytes() for image in (e["image"].open(), *e["other_images"])}
        assert len(pictures) == 8


def test_changed_scenes_change_one_thing_or_swap_two():
    for index in range(N):
        scene = scenes.scene_of("train", index)
        for other in itertools.chain(*scenes.changed_scenes(scene, SEEN)):
            differing = [(a, b) for a, b in zip(scene, other, strict=True) if a != b]
            assert len({(t.row, t.column) for t in other}) == len(scene)
            if len(differing) == 1:
                ((a, b),) = differing
                moved = (a.row, a.column) != (b.row, b.column)
                assert moved + (a.colour != b.colour) + (a.shape != b.shape) == 1
            else:
                assert len(differing) == 2
                assert {(a.colour, a.shape) for a, _ in differing} == {
                    (b.colour, b.shape) for _, b in differing
                }


def test_distractor_images_make_the_caption_false(monkeypatch):
    """Replace drawing by the scene itself, and read the caption against it."""
    monkeypatch.setattr(scenes, "draw", lambda scene, name: scene)
    for e in scenes.load(split="test", view="retrieval", limit=N):
        assert is_true(e["caption"], e["image"].source())
        assert not any(is_true(e["caption"], other) for other in e["other_images"])


@pytest.mark.parametrize("view", scenes.PROMPTS)
def test_exactly_the_label_is_true(view):
    examples = scenes.load(split="test", view=view, limit=N)
    labels = {e["label"] for e in examples}
    for e in examples:
        scene = scene_of(e)
        true = [label for label in e["classes"] if class_is_true(view, label, scene)]
        assert true == [e["label"]], e["id"]
    if view != "relation":
        assert labels == set(examples[0]["classes"])


def class_is_true(view, label, scene):
    """Whether a class of a view fits a scene, by looking at every thing."""
    if view == "shape":
        return any(thing.shape == label for thing in scene)
    if view == "colour":
        return any(thing.colour == label for thing in scene)
    if view == "count":
        return label.split()[0] == WORDS_OF_NUMBERS[len(scene)]
    if view == "position":
        return any(f"{ROWS[t.row]} {COLUMNS[t.column]}" == label for t in scene)
    return is_true(f"a {label}", scene)


def test_out_of_domain_combinations_are_never_shown_or_named_elsewhere():
    every = {f"{colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)}
    held_out = {" ".join(pair) for pair in HELD_OUT}
    for split in scenes.SPLITS:
        shown = {f"{t.colour} {t.shape}" for i in range(2000) for t in scenes.scene_of(split, i)}
        assert shown == (held_out if split == "ood" else every - held_out)
    for split, view in itertools.product(("train", "calibration"), ("vqa", "retrieval")):
        for e in scenes.load(split=split, view=view, limit=N):
            texts = [str(e[key]) for key in e if "image" not in key]
            assert not any(name in text for name in held_out for text in texts), e["id"]


def test_splits_show_different_pictures():
    pictures = [
        {e["image"].open().tobytes() for e in scenes.load(split=split, view="captions", limit=600)}
        for split in scenes.SPLITS
    ]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == 600 * len(scenes.SPLITS)


def test_one_name_draws_all_but_the_changed_thing_alike():
    first, second = Thing("red", "cross", 0, 0), Thing("blue", "circle", 2, 2)
    one = draw((first, second), "x")
    other = draw((Thing("green", "cross", 0, 0), second), "x")
    assert one.crop((0, 32, 64, 64)).tobytes() == other.crop((0, 32, 64, 64)).tobytes()
    assert one.tobytes() != other.tobytes()


def test_short_captions_are_true_and_readable():
    scene = (Thing("red", "cross", 0, 2),)
    assert short_captions(scene) == ["a cross", "a red shape", "a shape at top right", "one shape"]


@pytest.mark.parametrize(
    ("arguments", "seen", "allowed"),
    [
        ({"split": "tset", "view": "vqa"}, "tset", "validation"),
        ({"split": "test", "view": "vqas"}, "vqas", "captions"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(arguments, seen, allowed):
    with pytest.raises(ValueError, match=f"{seen}.*{allowed}"):
        scenes.load(**arguments)
