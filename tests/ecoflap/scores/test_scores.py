"""Scores against autograd and brute force."""

import math
import types
from dataclasses import replace

import pandas as pd
import pytest
import torch

import ecoflap
from ecoflap.errors import ConfigError, ModelError, PruningError
from ecoflap.models.model import Model
from ecoflap.plugins import SCORES
from ecoflap.scores import outliers, zeroth
from ecoflap.seeds import seed_from
from helpers import tiny


@pytest.fixture(params=tiny.MODELS)
def model(request):
    return tiny.MODELS[request.param]()


def gradients(model, batch):
    weights = [matrix.module.weight for matrix in model.matrices()]
    return torch.autograd.grad(model.loss(batch), weights)


def test_gradnorm_is_the_scaled_norm_of_the_plain_gradient(model):
    batches = tiny.batches(model, 2)
    table = ecoflap.score(model, batches, estimator="gradnorm")
    norms = torch.tensor([[g.norm().item() for g in gradients(model, b)] for b in batches])
    expected = math.sqrt(2 / math.pi) * norms.mean(0)
    assert torch.allclose(torch.tensor(table["score"]), expected.double(), rtol=1e-6)


def test_first_keeps_the_mean_gradient_of_all_batches(model):
    batches = tiny.batches(model, 3)
    table = ecoflap.score(model, batches, estimator="first")
    per_batch = [gradients(model, b) for b in batches]
    for row, matrix in enumerate(model.matrices()):
        mean = torch.stack([g[row].abs() for g in per_batch]).mean(0)
        expected = (matrix.module.weight.detach().abs() * mean).sum()
        assert table["score"][row] == pytest.approx(expected.item(), rel=1e-5)


def test_fisher_keeps_the_mean_square_of_all_batches(model):
    batches = tiny.batches(model, 3)
    table = ecoflap.score(model, batches, estimator="fisher")
    per_batch = [gradients(model, b) for b in batches]
    for row, matrix in enumerate(model.matrices()):
        mean = torch.stack([g[row].square() for g in per_batch]).mean(0)
        expected = (matrix.module.weight.detach().square() * mean).sum()
        assert table["score"][row] == pytest.approx(expected.item(), rel=1e-5)


def test_magnitude_is_the_sum_of_absolute_weights(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="magnitude")
    for row, matrix in enumerate(model.matrices()):
        expected = matrix.module.weight.detach().double().abs().sum()
        assert table["score"][row] == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_local_scores_are_means_of_metrics_of_the_dense_model(model, name):
    batches = tiny.batches(model, 2)
    table = ecoflap.score(model, batches, estimator=f"local-{name}").set_index("name")["score"]
    for matrix_name, inputs in tiny.hooked_inputs(model, batches).items():
        weight = model.module.get_submodule(matrix_name).weight.detach().double()
        inputs = inputs.double()
        if name == "wanda":
            metric = weight.abs() * inputs.norm(dim=0)
        else:
            hessian = inputs.T @ inputs
            hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
            scale = [torch.linalg.inv(hessian[j:, j:])[0, 0] for j in range(len(hessian))]
            metric = weight.square() / torch.stack(scale)
        assert table[matrix_name] == pytest.approx(metric.mean().item(), rel=1e-3)


def test_outliers_are_counted_against_the_mean_of_their_block(model, monkeypatch):
    monkeypatch.setattr(outliers, "MULTIPLE", 1.5)  # a matrix this small has none above 5
    batches = tiny.batches(model, 2)
    table = ecoflap.score(model, batches, estimator="outliers").set_index("name")["score"]
    inputs = tiny.hooked_inputs(model, batches)
    for block in model.blocks:
        metrics = {
            m.name: (m.module.weight.detach().abs() * inputs[m.name].square().mean(dim=0).sqrt())
            .flatten()
            .tolist()
            for m in block.matrices
        }
        every = [value for values in metrics.values() for value in values]
        for name, values in metrics.items():
            expected = sum(value > 1.5 * sum(every) / len(every) for value in values)
            assert table[name] == expected
    assert table.sum() > 0


@pytest.mark.parametrize("estimator", ["gradnorm", "first", "fisher"])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_float16_gradients_neither_vanish_nor_overflow(estimator, size, monkeypatch):
    """Losses of any size: float16 ends at 6e-8 below and at 65504 above."""
    model, reference = tiny.llama_model(), tiny.llama_model()
    model.module.half()
    for weight, half in zip(reference.module.parameters(), model.module.parameters(), strict=True):
        weight.data = half.data.float()
    for each in (model, reference):
        plain = type(each).loss
        monkeypatch.setattr(each, "loss", lambda b, m=each, f=plain: f(m, b) * size)
    batches = tiny.batches(model, 2)
    halves = ecoflap.score(model, batches, estimator=estimator)["score"]
    exact = ecoflap.score(reference, batches, estimator=estimator)["score"]
    assert halves.to_numpy() == pytest.approx(exact.to_numpy(), rel=0.03)


def test_zeroth_is_two_full_forwards_for_each_matrix_and_batch(model):
    batches, epsilon, seed = tiny.batches(model, 2), 1e-2, 5
    table = ecoflap.score(
        model, batches, estimator="zeroth", seed=seed, epsilon=epsilon, draws=2
    ).set_index("name")["score"]
    for matrix in list(model.matrices())[::5]:
        weight, total = matrix.module.weight, 0.0
        original = weight.detach().clone()
        for number, batch in enumerate(batches):
            for draw in range(2):
                generator = torch.Generator().manual_seed(
                    seed_from("zeroth", seed, matrix.name, number, draw)
                )
                noise = torch.randn(weight.shape, generator=generator)
                with torch.no_grad():
                    weight.copy_(original + epsilon * noise)
                    above = model.loss(batch).item()
                    weight.copy_(original - epsilon * noise)
                    below = model.loss(batch).item()
                    weight.copy_(original)
                total += abs(above - below) / (2 * epsilon)
        assert table[matrix.name] == total / 4


def test_zeroth_over_many_draws_agrees_with_gradnorm():
    # Doubles and a small step, so that nothing but the noise of the draws is left.
    model = tiny.clip_model()
    model.module.double()
    batches = [model.to_device(batch) for batch in tiny.batches(model, 1, size=4)]
    exact = ecoflap.score(model, batches, estimator="gradnorm").set_index("name")["score"]
    chosen = set(exact.nlargest(10).index)
    model.blocks = [
        replace(block, matrices=tuple(m for m in block.matrices if m.name in chosen))
        for block in model.blocks
    ]
    draws = 200
    table = ecoflap.score(model, batches, estimator="zeroth", draws=draws, epsilon=1e-6)
    assert len(table) == 10
    # abs(<g, z>) is half-normal: its coefficient of variation is sqrt(pi / 2 - 1).
    standard_error = math.sqrt(math.pi / 2 - 1) / math.sqrt(draws)
    estimates = table.set_index("name")["score"]
    deviations = (estimates / exact[estimates.index] - 1) / standard_error
    assert deviations.abs().max() < 3.5
    assert deviations.pow(2).mean() ** 0.5 < 1.8


def test_scores_do_not_depend_on_the_order_of_matrices():
    model, other = tiny.llama_model(), tiny.llama_model()
    other.blocks = other.blocks[::-1]
    other.blocks = [
        type(block)(i, block.name, block.tower, block.module, block.matrices[::-1])
        for i, block in enumerate(other.blocks)
    ]
    for block in other.blocks:
        for matrix in block.matrices:
            object.__setattr__(matrix, "block", block.index)
    batches = tiny.batches(model, 2)
    for estimator in ("zeroth", "gradnorm", "first"):
        a = ecoflap.score(model, batches, estimator=estimator).set_index("name")["score"]
        b = ecoflap.score(other, batches, estimator=estimator).set_index("name")["score"]
        assert a.to_dict() == b.to_dict()


@pytest.mark.parametrize("estimator", SCORES)
def test_scoring_leaves_the_model_as_it_was(model, estimator):
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    wanted = {name: p.requires_grad for name, p in model.module.named_parameters()}
    first = ecoflap.score(model, tiny.batches(model), estimator=estimator)
    second = ecoflap.score(model, tiny.batches(model), estimator=estimator)
    assert first.equals(second)
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad == wanted[name]


def test_noise_is_seeded_by_name_batch_and_draw():
    seeds = {
        seed_from("zeroth", seed, name, batch, draw)
        for seed in range(3)
        for name in ("a", "b")
        for batch in range(3)
        for draw in range(3)
    }
    assert len(seeds) == 54


def test_weights_come_back_when_a_forward_fails(monkeypatch):
    model = tiny.llama_model()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    calls = []

    def loss(batch):
        calls.append(batch)
        if len(calls) == 4:
            raise RuntimeError("on purpose")
        return type(model).loss(model, batch)

    monkeypatch.setattr(model, "loss", loss)
    with pytest.raises(RuntimeError, match="on purpose"):
        ecoflap.score(model, tiny.batches(model), estimator="zeroth")
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)


def test_losses_that_are_not_finite_stop_with_a_message():
    model = tiny.llama_model()
    with torch.no_grad():
        model.module.lm_head.weight.fill_(float("inf"))
    for estimator in ("zeroth", "gradnorm"):
        with pytest.raises(PruningError, match="finite"):
            ecoflap.score(model, tiny.batches(model), estimator=estimator)


def test_unknown_names_and_empty_data_stop_with_a_message():
    model = tiny.llama_model()
    with pytest.raises(ConfigError, match="Did you mean 'zeroth'"):
        ecoflap.score(model, tiny.batches(model), estimator="zeroeth")
    with pytest.raises(ConfigError, match="Did you mean 'draws'"):
        ecoflap.score(model, tiny.batches(model), estimator="zeroth", draw=3)
    with pytest.raises(ModelError, match="no calibration batch"):
        ecoflap.score(model, [])
    assert set(zeroth.SETTINGS) == {"draws", "epsilon"}


class _Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        """Applies the Linear and a kink."""
        return x + self.linear(x).relu()


class _Twice(torch.nn.Module):
    """Runs its blocks on two inputs in one forward, as siamese models do."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(_Block() for _ in range(3))

    def forward(self, one, other, use_other):
        """Returns a loss that sees the second run only if asked to."""
        for block in self.blocks:
            one, other = block(one), block(other)
        loss = one.square().mean() + use_other.item() * other.abs().mean()
        return types.SimpleNamespace(loss=loss if use_other else one.square().mean())


@pytest.mark.parametrize("use_other", [True, False])
def test_gradients_of_a_block_that_runs_twice_are_added_before_they_are_reduced(use_other):
    torch.manual_seed(0)
    model = Model(_Twice(), None)
    batch = {"one": torch.randn(2, 4), "other": torch.randn(2, 4)}
    batch["use_other"] = torch.tensor(use_other)
    found = ecoflap.score(model, [batch])["score"]
    model.module(**batch).loss.backward()
    expected = [m.module.weight.grad.norm() * (2 / torch.pi) ** 0.5 for m in model.matrices()]
    assert found.tolist() == pytest.approx([float(value) for value in expected], rel=1e-6)


def test_ranges_of_blocks_give_the_rows_of_one_run():
    model = tiny.blip2_model()
    batches = tiny.batches(model, 2)
    whole = ecoflap.score(model, batches, estimator="zeroth", draws=2)
    parts = [
        ecoflap.score(model, batches, estimator="zeroth", draws=2, blocks=blocks)
        for blocks in (range(0, 2), range(2, 4), range(4, len(model.blocks)))
    ]
    assert pd.concat(parts, ignore_index=True).equals(whole)


def test_ranges_of_blocks_are_for_zeroth_alone():
    model = tiny.llama_model()
    with pytest.raises(ConfigError, match="blocks with the estimator gradnorm"):
        ecoflap.score(model, tiny.batches(model, 1), blocks=range(1))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"draws": 1.5}, "a whole number above 0"),
        ({"draws": "2"}, "a whole number above 0"),
        ({"draws": None}, "a whole number above 0"),
        ({"epsilon": "1e-3"}, "a number above 0"),
        ({"blocks": [99]}, "numbers from 0 to"),
        ({"blocks": 0}, "numbers from 0 to"),
        ({"blocks": ["a"]}, "numbers from 0 to"),
        ({"blocks": []}, "numbers from 0 to"),
    ],
)
def test_settings_of_another_kind_are_told(settings, told):
    model = tiny.llama_model()
    with pytest.raises(ConfigError, match=told):
        ecoflap.score(model, tiny.batches(model, 1), estimator="zeroth", **settings)
