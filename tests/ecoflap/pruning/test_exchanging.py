"""Exchanges of weights between matrices: what the search promises, on small models."""

import itertools

import pytest
import torch

from ecoflap.allocation import allocate, budget
from ecoflap.errors import PruningError
from ecoflap.pruning import exchanging, layerwise
from ecoflap.pruning.choosing import dense_afterwards, mean_loss
from ecoflap.scores import matrix_table
from helpers import tiny

SETTINGS = {"criterion": "magnitude"}


@pytest.fixture(params=["llama", "blip2"])
def model(request):
    return getattr(tiny, f"{request.param}_model")()


def parts(model):
    made = tiny.batches(model, count=3)
    return made[:1], model.ready(made[1:])


def pruned_loss(model, batches, held_out, plan):
    with dense_afterwards(model):
        layerwise.prune(model, batches, plan, **SETTINGS)
        return mean_loss(model, held_out)


def test_a_search_lowers_the_held_out_loss_under_the_exact_budget(model):
    """Magnitude reads no inputs, so that what is measured in the search is what pruning gives."""
    batches, held_out = parts(model)
    plan = allocate(matrix_table(model), sparsity="0.5", method="uniform")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    found = exchanging.exchange(
        model, batches, held_out, plan, sparsity="0.5", pruning_settings=SETTINGS
    )
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not model.masks
    assert found["keep"].sum() == budget(plan["n_weights"], "0.5")
    assert (found["sparsity"] == 1 - found["keep"] / found["n_weights"]).all()
    assert found["sparsity"].between(0, 1, inclusive="left").all()
    assert found["sparsity"].nunique() > 1
    losses = [pruned_loss(model, batches, held_out, each) for each in (plan, found)]
    assert losses[1] < losses[0]


def test_what_a_step_costs_is_the_slope_of_the_loss(model, tmp_path):
    """Against the change of the loss when a matrix goes a small part of the way."""
    batches, held_out = parts(model)
    plan = allocate(matrix_table(model), sparsity="0.5", method="uniform")
    levels = exchanging._Levels(model, tmp_path, plan)
    levels.prune(batches, **SETTINGS)
    up, down = exchanging._moves(model, held_out, levels, levels.start)
    assert {move.name for move in up} == {move.name for move in down} == set(plan["name"])
    for move in itertools.islice(itertools.chain(up, down), 0, None, 5):
        weight = levels.matrices[move.name].module.weight
        start = weight.detach().clone()
        way = levels.get(levels.matrices[move.name], move.level) - start
        ends = []
        for part in (0.05, -0.05):
            with torch.no_grad():
                weight.copy_(start + part * way)
            ends.append(mean_loss(model, held_out))
        with torch.no_grad():
            weight.copy_(start)
        slope = (ends[0] - ends[1]) / 0.1
        assert move.slope * move.weights == pytest.approx(slope, rel=0.05, abs=2e-5)


def test_chosen_steps_are_the_cheapest_that_lower_the_loss_together():
    move = exchanging.Move
    up = [move(-3.0, "a", 2, 10), move(-1.0, "b", 2, 10), move(2.0, "c", 2, 10)]
    down = [move(-2.0, "b", 0, 10), move(-0.5, "d", 0, 10), move(0.5, "a", 0, 10)]
    away, back = exchanging._balanced((up, down), most=10, surplus=0)
    assert [m.name for m in away] == ["a"]
    assert [m.name for m in back] == ["b"]
    away, back = exchanging._balanced((up, down), most=20, surplus=0)
    assert [m.name for m in away] == ["a"]  # b has come back, and c costs more than d saves
    assert [m.name for m in back] == ["b"]
    away, back = exchanging._balanced((up, down), most=30, surplus=20)
    assert [m.name for m in back][:1] == ["b"]  # what was removed beyond the budget comes back
    assert exchanging._balanced(([up[2]], down[2:]), most=99, surplus=0) == ([], [])


def test_a_search_with_a_pattern_is_refused():
    model = tiny.llama_model()
    batches, held_out = parts(model)
    plan = allocate(matrix_table(model), sparsity="0.5", method="uniform")
    with pytest.raises(PruningError, match="a search with a pattern"):
        exchanging.exchange(
            model, batches, held_out, plan, sparsity="0.5", pruning_settings={"pattern": "2:4"}
        )
