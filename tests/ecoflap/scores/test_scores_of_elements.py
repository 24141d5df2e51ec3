"""Scores made for one allocation each, against autograd, numpy and loops over the elements."""

import importlib

import numpy as np
import pytest
import torch

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.errors import PruningError
from ecoflap.scores import _histogram, lamp, outliers, spectrum
from helpers import tiny


@pytest.fixture(params=tiny.MODELS)
def model(request):
    return tiny.MODELS[request.param]()


def buckets_of(values):
    """The definition, sorted: the top 16 bits of the float32 pattern."""
    return np.sort(np.asarray(values, dtype=np.float32).ravel().view(np.int32) >> 16)


def counted(row):
    return np.repeat(row["buckets"], row["counts"])


def agrees(row, values):
    """Counts are those of the expected values, but for rounding across a bucket's edge."""
    found, expected = counted(row), buckets_of(values)
    assert len(found) == row["n_weights"]
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.98


def test_elements_is_autograds_mean_absolute_gradient_times_the_weight(model):
    batches = tiny.batches(model, 3)
    table = ecoflap.score(model, batches, estimator="elements").set_index("name", drop=False)
    weights = {matrix.name: matrix.module.weight for matrix in model.matrices()}
    means = dict.fromkeys(weights, 0)
    for batch in batches:
        gradients = torch.autograd.grad(model.loss(batch), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            means[name] = means[name] + gradient.abs() / len(batches)
    for name, weight in weights.items():
        agrees(table.loc[name], (weight.detach().abs() * means[name]).numpy())
    first = ecoflap.score(model, batches, estimator="first")
    assert table["score"].tolist() == pytest.approx(first["score"].tolist(), rel=1e-5)


def test_elements_magnitude_counts_the_absolute_weights(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="elements-magnitude")
    for (_, row), matrix in zip(table.iterrows(), model.matrices(), strict=True):
        weight = matrix.module.weight.detach().abs().numpy()
        assert counted(row).tolist() == buckets_of(weight).tolist()
        assert row["score"] == pytest.approx(weight.sum(dtype=np.float64), rel=1e-6)


def looped_lamp(weight):
    """The definition: for each weight the sum over all that are at least as large."""
    squares = weight.double().square().flatten().tolist()
    return [s / sum(other for other in squares if other >= s) if s else 0.0 for s in squares]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lamp_by_a_loop_over_all_pairs(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 20, generator=generator).to(dtype)
    assert lamp.lamp_scores(weight).tolist() == pytest.approx(sorted(looped_lamp(weight)))
    ties = torch.randint(-3, 4, (9, 11), generator=generator).to(dtype)
    assert (ties == 0).any()
    assert lamp.lamp_scores(ties).tolist() == pytest.approx(sorted(looped_lamp(ties)))
    assert lamp.lamp_scores(torch.zeros(2, 3)).tolist() == [0.0] * 6


def test_lamp_scores_are_counted(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="lamp")
    for (_, row), matrix in zip(table.iterrows(), model.matrices(), strict=True):
        expected = looped_lamp(matrix.module.weight.detach())
        agrees(row, expected)
        assert row["score"] == pytest.approx(np.mean(expected))


def test_medians_are_those_of_wandas_metric_on_the_dense_model(model):
    batches = tiny.batches(model, 2)
    table = ecoflap.score(model, batches, estimator="medians").set_index("name", drop=False)
    for name, inputs in tiny.hooked_inputs(model, batches).items():
        weight = model.module.get_submodule(name).weight.detach().double()
        metric = (weight.abs() * inputs.double().square().mean(dim=0).sqrt()).flatten()
        agrees(table.loc[name], metric.numpy())
        middle = torch.quantile(metric, 0.5, interpolation="lower").item()
        assert table.loc[name, "score"] == pytest.approx(middle, rel=1e-5)


@pytest.mark.parametrize(("estimator", "method"), [("medians", "dlp"), ("outliers", "owl")])
def test_what_is_per_token_does_not_count_samples(model, estimator, method, monkeypatch):
    monkeypatch.setattr(outliers, "MULTIPLE", 1.5)  # a matrix this small has none above 5
    batches = tiny.batches(model, 2)
    once, twice = (ecoflap.score(model, b, estimator=estimator) for b in (batches, batches * 2))
    assert twice["score"].tolist() == pytest.approx(once["score"].tolist(), rel=1e-6)
    plans = [ecoflap.allocate(scores, sparsity="0.5", method=method) for scores in (once, twice)]
    assert plans[0]["keep"].tolist() == plans[1]["keep"].tolist()


@pytest.mark.parametrize(("estimator", "method"), [("medians", "dlp"), ("outliers", "owl")])
def test_tokens_cancel_in_a_decoder_only_model(estimator, method, monkeypatch):
    """The authors' metric, which is a sum over tokens, gives the same plan."""
    monkeypatch.setattr(outliers, "MULTIPLE", 1.5)
    model = tiny.llama_model()
    batches = tiny.batches(model, 2)
    per_token = ecoflap.score(model, batches, estimator=estimator)
    module = importlib.import_module(f"ecoflap.scores.{estimator}")
    monkeypatch.setattr(module, "_per_token", wanda)
    summed = ecoflap.score(model, batches, estimator=estimator)
    plans = [ecoflap.allocate(s, sparsity="0.5", method=method) for s in (per_token, summed)]
    size = plans[0].groupby("block")["n_weights"].sum()
    keep, other = (plan.groupby("block")["keep"].sum() for plan in plans)
    # Medians of a histogram are known to 1/128 of themselves.
    assert ((keep - other).abs() / size).max() <= (0.3 / 128 if method == "dlp" else 0)


def hill(weight):
    """The exponent from numpy's eigenvalues and histogram."""
    smaller = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    values = np.linalg.eigvalsh(smaller)
    counts, edges = np.histogram(np.log10(values), bins=100)
    tail = values[np.log10(values) >= edges[np.argmax(counts)]]
    return 1 + len(tail) / np.log(tail / tail.min()).sum()


@pytest.mark.parametrize("shape", [(300, 300), (120, 400), (400, 120)])
def test_spectrum_is_hills_estimator_on_numpys_eigenvalues(shape):
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(3, shape)
    found = spectrum.exponent(torch.tensor(heavy, dtype=torch.float32), "m", spectrum.from_peak)
    assert found == pytest.approx(hill(heavy), rel=1e-4)


def test_spectrum_recovers_the_exponent_of_a_power_law():
    # Eigenvalues at the quantiles of a density ~ lambda^-2.5 above 1: Hill's estimator gives 2.5.
    rng = np.random.default_rng(1)
    eigenvalues = (1 - (np.arange(600) + 0.5) / 600) ** (-1 / 1.5)
    left, right = (np.linalg.qr(rng.standard_normal((600, 600)))[0] for _ in range(2))
    weight = torch.tensor(left * np.sqrt(eigenvalues) @ right)
    assert spectrum.exponent(weight, "m", spectrum.from_peak) == pytest.approx(2.5, rel=0.05)


def test_spectrum_of_every_matrix(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="spectrum")
    for score, matrix in zip(table["score"], model.matrices(), strict=True):
        weight = matrix.module.weight.detach().double().numpy()
        assert score == pytest.approx(hill(weight), rel=1e-3)


def test_the_upper_half_of_a_spectrum_by_the_authors_lines(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="spectrum-middle")
    for score, matrix in zip(table["score"], model.matrices(), strict=True):
        singular = np.linalg.svd(matrix.module.weight.detach().double().numpy(), compute_uv=False)
        values = np.sort(singular**2)
        i = int(len(values) / 2)
        n = len(values) - i
        expected = 1 + n / (np.log(values[i:]).sum() - n * np.log(values[i]))
        assert score == pytest.approx(expected, rel=1e-3)


def test_zero_eigenvalues_take_no_part():
    rng = np.random.default_rng(2)
    full = rng.standard_normal((40, 60))
    wide = np.concatenate([full, full[:10]])  # ten of fifty eigenvalues are zero but for rounding
    singular = np.linalg.svd(wide, compute_uv=False)[:40]
    found = spectrum.exponent(torch.tensor(wide), "m", spectrum.from_peak)
    assert found == pytest.approx(hill(np.diag(singular)), rel=1e-4)


@pytest.mark.parametrize(
    "weight", [torch.zeros(4, 5), torch.ones(3, 3), torch.eye(6), torch.full((3, 3), torch.nan)]
)
def test_a_spectrum_without_a_tail_names_the_matrix(weight):
    with pytest.raises(PruningError, match=r"a\.b"):
        spectrum.exponent(weight, "a.b", spectrum.from_peak)


def test_counts_are_exact_for_any_size_shape_and_dtype(monkeypatch):
    monkeypatch.setattr(_histogram, "CHUNK", 1000)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        values = torch.randn(77, 91, generator=generator).exp().to(dtype)
        values[0] = 0.0
        values[1] = -0.0
        values[2, 0] = 1e-41  # below the smallest normal number
        found = _histogram.scored(values.T, 1.0, "m")
        expected = np.unique(buckets_of(values.abs().float().numpy()), return_counts=True)
        assert found.buckets == expected[0].tolist()
        assert found.counts == expected[1].tolist()
        assert sum(found.counts) == 77 * 91


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e-30])
def test_what_cannot_be_counted_names_the_matrix(value):
    with pytest.raises(PruningError, match=r"importances of a\.b range"):
        _histogram.scored(torch.tensor([1.0, value]), 1.0, "a.b")


def test_scores_carry_the_shape_of_their_matrices(model):
    table = ecoflap.score(model, tiny.batches(model), estimator="magnitude")
    shapes = [tuple(matrix.module.weight.shape) for matrix in model.matrices()]
    assert list(zip(table["n_out"], table["n_in"], strict=True)) == shapes
    assert (table["n_out"] * table["n_in"] == table["n_weights"]).all()
    assert "buckets" not in table
