"""What the demo model is taught about questions, against the questions themselves."""

import random

import pytest
import torch

from demo.batches import PROMPT
from demo.models import N_LANGUAGE_HEADS, build_blip2
from demo.reading import NOWHERE, cell_labels, word_labels
from ecoflap.data.builtin import scenes
from ecoflap.data.builtin._scene_language import RELATIONS, ask, related
from ecoflap.data.builtin._scene_pictures import SEEN

IGNORED = -100


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return build_blip2()


def questions(kind, n=60):
    rng = random.Random(kind)
    for number in range(n):
        scene = scenes.scene_of("train", number)
        if question := ask(scene, kind, rng, SEEN):
            yield scene, question


def labels(built, scene, question):
    """The tokens, and by token what it should know."""
    tokenizer = built[1].tokenizer
    tokens = tokenizer.tokenize(PROMPT.format(question=question.text))
    place, truth = word_labels(tokens, question.answer, scene)
    assert len(place) == len(truth) == len(tokens)
    return tokens, place, truth, cell_labels(tokens, scene)


def test_relations_are_true_between_the_cells_that_the_labels_name(built):
    seen = set()
    for scene, question in questions("relation"):
        tokens, place, truth, cells = labels(built, scene, question)
        if question.answer not in ("yes", "no"):
            continue
        first, second = (cell for cell in place if cell != IGNORED)
        by_cell = {3 * thing.row + thing.column: thing for thing in scene}
        (relation,) = (r for r in RELATIONS if f" {r} " in question.text)
        holds = related(by_cell[first], relation, by_cell[second])
        assert [label for label in truth if label != IGNORED] == [int(holds)]
        assert tokens[[label != IGNORED for label in truth].index(True)] in relation
        roles = {cell: role for cell, role in enumerate(cells) if role != IGNORED}
        assert roles == {
            cell: 1 if cell == first else 2 if cell == second else 0 for cell in by_cell
        }
        seen.add(holds)
    assert seen == {True, False}


def test_a_thing_that_is_not_there_is_nowhere(built):
    for scene, question in questions("existence"):
        _, place, truth, cells = labels(built, scene, question)
        (cell,) = (cell for cell in place if cell != IGNORED)
        assert (cell == NOWHERE) == (question.answer == "no")
        assert set(truth) == {IGNORED}
        assert cells.count(1) == (question.answer == "yes")


def test_half_of_the_heads_start_with_near_words_on_one_side(built):
    model = built[0].language_model
    attention = model.encoder.block[0].layer[0].SelfAttention
    bias = attention.compute_bias(9, 9)[0].softmax(-1)  # [heads, query, key]
    half = N_LANGUAGE_HEADS // 2
    assert torch.allclose(bias[:half], torch.full((), 1 / 9))
    before, after = bias[half::2, 4], bias[half + 1 :: 2, 4]
    assert (before[:, :5].sum(-1) > 0.95).all()
    assert (after[:, 5:].sum(-1) > 0.95).all()
    assert (before.argmax(-1) == 4).all()
    assert (after.argmax(-1) == 5).all()
