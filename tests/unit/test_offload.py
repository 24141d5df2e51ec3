"""Weights that come and go with their block give the same bytes as weights that stay."""

import ecoflap
import pytest
import tiny
import torch
from ecoflap.models.offload import HostStore, Offload
from ecoflap.scores import matrix_table


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


def offloaded(model):
    blocks = [(block.name, block.module) for block in model.blocks]
    held = {f"{name}.{k}": p for name, module in blocks for k, p in module.named_parameters()}
    model.weights = Offload(blocks, HostStore(held), torch.device("cpu"), torch.float32)
    return model


def test_weights_are_gone_outside_of_their_block(family):
    model = offloaded(family())
    for block in model.blocks:
        assert {p.device.type for p in block.module.parameters()} == {"meta"}
    with model.resident(0), model.resident(0):
        assert {p.device.type for p in model.blocks[0].module.parameters()} == {"cpu"}
    assert {p.device.type for p in model.blocks[0].module.parameters()} == {"meta"}


@pytest.mark.parametrize("estimator", ["gradnorm", "first", "zeroth", "magnitude", "local-wanda"])
def test_scores_are_the_same(family, estimator):
    model = family()
    batches = tiny.batches(model, 2)
    expected = ecoflap.score(model, batches, estimator=estimator)
    found = ecoflap.score(offloaded(family()), batches, estimator=estimator)
    assert found.equals(expected)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_pruned_weights_are_the_same(family, criterion):
    model, other = family(), offloaded(family())
    batches = tiny.batches(model, 2)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    expected = ecoflap.prune(model, batches, plan, criterion=criterion)
    found = ecoflap.prune(other, batches, plan, criterion=criterion)
    columns = ["name", "achieved_sparsity", "block_error"]
    assert found[columns].equals(expected[columns])
    for matrix in model.matrices():
        stored = other.weights.store.read(f"{matrix.name}.weight")
        assert torch.equal(stored, matrix.module.weight), matrix.name
    for batch in batches:
        with torch.no_grad():
            loss, _ = ecoflap.blocks.run(
                other.block_modules(),
                lambda batch=batch: other.loss(batch),
                around=other.resident,
                places=ecoflap.activations.places(other),
            )
        assert torch.equal(loss, model.loss(batch))
