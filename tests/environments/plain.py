"""What plain forwards and backwards with hooks give, and the checks that both models share."""

import math

import pandas as pd
import torch

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.engine.walk import Walk


def check_statistics(model, batches, real) -> None:
    """Compares the inputs that a walk sees with those that hooks see in plain forwards.

    Args:
        model: The model.
        batches: Its batches.
        real: Returns which tokens of a matrix (by name) are real in a batch, None for all.
    """
    sums, current = {}, {}

    def watch(matrix):
        def take(_, args):
            valid = real(matrix.name, current)
            rows = args[0] if valid is None else args[0][valid]
            squares = rows.reshape(-1, rows.shape[-1]).double().square().sum(0)
            sums[matrix.name] = sums.get(matrix.name, 0) + squares

        return matrix.module.register_forward_pre_hook(take)

    handles = [watch(matrix) for matrix in model.matrices()]
    with torch.no_grad():
        for batch in batches:
            current.clear()
            current.update(batch)
            model.loss(batch)
    for handle in handles:
        handle.remove()
    walk, seen = Walk(model, batches, wanda), set()
    for block in walk:
        for name, squares in walk.statistics(block).items():
            torch.testing.assert_close(squares.double(), sums[name], rtol=1e-5, atol=1e-6)
            seen.add(name)
        walk.advance(block)
    assert seen == set(sums) == {matrix.name for matrix in model.matrices()}


def check_gradnorm(model, batches) -> None:
    """Compares gradnorm with the norms of a plain backward."""
    table = ecoflap.score(model, batches, estimator="gradnorm")
    expected = torch.zeros(len(table), dtype=torch.float64)
    for batch in batches:
        weights = [matrix.module.weight for matrix in model.matrices()]
        gradients = torch.autograd.grad(model.loss(batch), weights)
        expected += torch.tensor([gradient.double().norm().item() for gradient in gradients])
    expected *= math.sqrt(2 / math.pi) / len(batches)
    assert expected.min() > 0
    torch.testing.assert_close(torch.tensor(table["score"]), expected, rtol=1e-5, atol=0)


def check_dense_prune(model, batches) -> None:
    """Sparsity 0 leaves every byte as it was."""
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    sizes = [matrix.n_weights for matrix in model.matrices()]
    scores = ecoflap.score(model, batches[:1], estimator="magnitude")
    plan = ecoflap.allocate(scores, sparsity="0.0", method="uniform")
    assert plan["keep"].sum() == sum(sizes)
    for criterion in ("wanda", "sparsegpt"):
        ecoflap.prune(model, batches, plan, criterion=criterion)
        for name, tensor in model.module.state_dict().items():
            assert torch.equal(tensor, before[name]), name


def prune_half(model, batches) -> pd.DataFrame:
    """Scores, allocates and prunes; returns the report."""
    scores = ecoflap.score(model, batches, estimator="gradnorm")
    plan = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.6")
    report = ecoflap.prune(model, batches, plan, criterion="wanda")
    assert plan["keep"].sum() == round(0.5 * plan["n_weights"].sum())
    return report
