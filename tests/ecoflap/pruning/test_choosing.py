"""``allocation: auto`` against pruning fresh models one by one."""

import itertools
import math

import pytest
import torch

import ecoflap
from ecoflap import allocation
from ecoflap.errors import AllocationError, ModelError, PruningError
from ecoflap.pruning import choosing
from helpers import tiny

ECOFLAP = [{"method": "ecoflap", "score": "global"}]


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


def loss_after(model, batches, plan, held_out, **settings):
    ecoflap.prune(model, batches, plan, **settings)
    with torch.no_grad():
        return model.loss(held_out).item()


def test_the_choice_is_that_of_pruning_a_fresh_model_with_each(family):
    model = family()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    *batches, held_out = tiny.batches(model, 3)
    scores = {"global": ecoflap.score(model, batches)}
    found = choosing.choose_plan(model, batches, [held_out], scores, ECOFLAP, sparsity="0.6")
    plans = [
        ecoflap.allocate(scores["global"], sparsity="0.6", max_sparsity=f"{0.6 + margin:.2f}")
        for margin in (0.05, 0.1, 0.2, 0.3)
    ]
    losses = [loss_after(family(), batches, plan, held_out) for plan in plans]
    best = losses.index(min(losses))
    assert found.rows["loss"].tolist() == losses
    assert found.rows["strength"].tolist() == ["+0.05", "+0.1", "+0.2", "+0.3"]
    assert found.rows["chosen"].tolist() == [number == best for number in range(4)]
    assert found.plan.equals(plans[best])
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)
    assert model.masks == {}


def test_every_kind_is_tried_with_the_criterion_that_is_used():
    model = tiny.blip2_model()
    *batches, held_out = tiny.batches(model, 3)
    scores = {
        "global": ecoflap.score(model, batches),
        "medians": ecoflap.score(model, batches, estimator="medians"),
        "spectrum": ecoflap.score(model, batches, estimator="spectrum-middle"),
    }
    scores[None] = scores["global"].drop(columns="score")
    dlp = {"method": "dlp", "score": "medians"}
    candidates = [
        {"method": "uniform"},
        {"method": "alphapruning", "score": "spectrum", "granularity": "matrix"},
        {**ECOFLAP[0], "max_sparsity": "+0.2", "inside": {**dlp, "strength": 0.05}},
        {**dlp, "budget": "stack"},
    ]
    found = choosing.choose_plan(
        model,
        batches,
        [held_out],
        scores,
        candidates,
        sparsity="0.5",
        pruning_settings={"criterion": "sparsegpt"},
    )
    assert found.rows["candidate"].tolist() == [0, 1, 1, 1, 2, 3, 3, 3, 3]
    assert found.rows["strength"].tolist()[:5] == ["", "0.1", "0.2", "0.3", "+0.2, 0.05"]
    best = found.rows["loss"].idxmin()
    assert found.rows["chosen"].tolist() == [number == best for number in range(9)]
    plan = allocation.plan_from(scores, found.settings, "0.5")
    assert found.plan.equals(plan)
    fresh = loss_after(tiny.blip2_model(), batches, plan, held_out, criterion="sparsegpt")
    assert found.rows["loss"][best] == fresh


def test_of_two_levels_each_strength_of_the_one_is_tried_with_each_of_the_other():
    settings = {"method": "ecoflap", "inside": {"method": "dlp"}}
    tried = [
        (s["max_sparsity"], s["inside"]["strength"]) for s in allocation.each_strength(settings)
    ]
    outer, inner = (allocation.METHODS[method].tried for method in ("ecoflap", "dlp"))
    assert tried == list(itertools.product(outer, inner))
    said = {**settings, "max_sparsity": "+0.1", "inside": {"method": "dlp", "strength": 0.1}}
    assert allocation.each_strength(said) == [said]
    assert allocation.strength_of(said) == "+0.1, 0.1"


def test_a_plan_that_the_sparsity_leaves_no_room_for_is_passed_over():
    model = tiny.llama_model()
    *batches, held_out = tiny.batches(model, 3)
    scores = {"medians": ecoflap.score(model, batches, estimator="medians")}
    dlp = [{"method": "dlp", "score": "medians"}]
    found = choosing.choose_plan(model, batches, [held_out], scores, dlp, sparsity="0.88")
    assert [math.isnan(loss) for loss in found.rows["loss"]] == [False, False, True, True]
    assert found.rows["chosen"].sum() == 1
    with pytest.raises(PruningError, match="no plan gives a finite loss"):
        choosing.choose_plan(model, batches, [held_out], scores, dlp, sparsity="0.99")
    wrong = [{"method": "owl", "score": "medians"}]
    with pytest.raises(AllocationError, match="owl with scores of the estimator medians"):
        choosing.choose_plan(model, batches, [held_out], scores, wrong, sparsity="0.5")


def test_a_model_is_dense_again_after_an_error():
    model = tiny.llama_model()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    batches = tiny.batches(model, 1)
    scores = {"global": ecoflap.score(model, batches)}
    wrong = [{"labels": torch.ones(1, dtype=torch.int64)}]
    with pytest.raises(ValueError, match="input_ids"):
        choosing.choose_plan(model, batches, wrong, scores, ECOFLAP, sparsity="0.6")
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)


def test_held_out_batches_are_wanted():
    model = tiny.llama_model()
    with pytest.raises(ModelError, match="no calibration batch"):
        choosing.choose_plan(model, [], [], {}, ECOFLAP, sparsity="0.6")
