"""``max_sparsity: auto`` against pruning fresh models one by one."""

import ecoflap
import pytest
import tiny
import torch
from ecoflap import margins
from ecoflap.errors import ModelError


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


def test_the_choice_is_that_of_pruning_a_fresh_model_with_each(family):
    model = family()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    *batches, held_out = tiny.batches(model, 3)
    scores = ecoflap.score(model, batches)
    found = margins.choose_max_sparsity(model, batches, [held_out], scores, sparsity="0.6")
    losses = []
    for margin in (0.05, 0.1, 0.2, 0.3):
        fresh = family()
        plan = ecoflap.allocate(scores, sparsity="0.6", max_sparsity=f"{0.6 + margin:.2f}")
        ecoflap.prune(fresh, batches, plan)
        with torch.no_grad():
            losses.append(fresh.loss(held_out).item())
    assert found["loss"].tolist() == losses
    assert found["chosen"].idxmax() == losses.index(min(losses))
    assert found["chosen"].sum() == 1
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)
    assert model.masks == {}


def test_a_model_is_dense_again_after_an_error():
    model = tiny.llama_model()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    batches = tiny.batches(model, 1)
    scores = ecoflap.score(model, batches)
    wrong = [{"labels": torch.ones(1, dtype=torch.int64)}]
    with pytest.raises(ValueError, match="input_ids"):
        margins.choose_max_sparsity(model, batches, wrong, scores, sparsity="0.6")
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)


def test_held_out_batches_are_wanted():
    model = tiny.llama_model()
    with pytest.raises(ModelError, match="no calibration batch"):
        margins.choose_max_sparsity(model, [], [], None, sparsity="0.6")
