"""Baselines: global magnitude against one sort, iterative OBD against plain autograd."""

import pytest
import torch

from ecoflap.errors import ModelError
from ecoflap.pruning import whole_model
from helpers import tiny


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


@pytest.mark.parametrize("sparsity", ["0.3", "0.5", "0.77"])
def test_global_magnitude_is_one_sort_of_all_absolute_weights(family, sparsity):
    model = family()
    values = torch.cat([m.module.weight.detach().abs().flatten() for m in model.matrices()])
    removed = len(values) - round((1 - float(sparsity)) * len(values))
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[values.argsort()[:removed]] = True
    whole_model.prune_global_magnitude(model, sparsity)
    after = torch.cat([m.module.weight.detach().flatten() for m in model.matrices()])
    assert torch.equal(after == 0, expected)


def test_global_magnitude_is_exact_with_ties():
    model = tiny.llama_model()
    for matrix in model.matrices():
        matrix.module.weight.data.sign_()
    report = whole_model.prune_global_magnitude(model, "0.5")
    removed = (report["achieved_sparsity"] * report["n_weights"]).sum()
    assert removed == report["n_weights"].sum() / 2


def literal_obd(model, batches, p):
    """Three steps of OBD with all gradients at once and one sort per tower."""
    for step in (1, 2, 3):
        weights = {m.name: m.module.weight for m in model.matrices()}
        fisher = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for batch in batches:
            model.module.zero_grad()
            model.loss(batch).backward()
            for name, weight in weights.items():
                if weight.grad is not None:
                    fisher[name] += weight.grad**2
        for tower in {m.tower for m in model.matrices()}:
            names = [m.name for m in model.matrices() if m.tower == tower]
            damage = torch.cat([(weights[n] ** 2 * fisher[n]).detach().flatten() for n in names])
            # What is gone has a damage of zero and comes first, as in a stable sort.
            gone = len(damage) - round((1 - p ** (3 / step)) * len(damage))
            mask = torch.zeros(len(damage), dtype=torch.bool)
            mask[damage.argsort(stable=True)[:gone]] = True
            for name, part in zip(
                names, mask.split([weights[n].numel() for n in names]), strict=True
            ):
                with torch.no_grad():
                    weights[name][part.reshape(weights[name].shape)] = 0
    return {name: weight == 0 for name, weight in weights.items()}


def test_iterative_obd_is_the_literal_algorithm(family):
    model, reference = family(), family()
    batches = tiny.batches(model, 3)
    expected = literal_obd(reference, batches, 0.5)
    report = whole_model.prune_iterative_obd(model, batches, "0.5")
    for matrix in model.matrices():
        assert torch.equal(matrix.module.weight == 0, expected[matrix.name]), matrix.name
    for _, part in report.groupby("tower"):
        removed = (part["achieved_sparsity"] * part["n_weights"]).sum()
        assert removed == pytest.approx(part["n_weights"].sum() / 2, abs=0.5)


def test_iterative_obd_wants_a_batch():
    with pytest.raises(ModelError, match="at least one"):
        whole_model.prune_iterative_obd(tiny.llama_model(), [], "0.5")
