"""Allocation against a bisection solver and small cases worked by hand."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import ecoflap
from ecoflap import allocation
from ecoflap.errors import AllocationError


def bisected(scores, sizes, p, p_max):
    """Solves Equation 3 for lambda by bisection, an independent way to the same real solution."""
    scores, sizes = np.asarray(scores, float), np.asarray(sizes, float)
    total = round((1 - p) * sizes.sum())

    def kept(rate):
        return np.minimum(sizes, sizes * (1 - p_max) + rate * scores)

    low, high = 0.0, 1.0
    while kept(high).sum() < total:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle).sum() < total else (low, middle)
    return kept(high)


@pytest.mark.parametrize("seed", range(20))
def test_budgets_are_the_bisection_solution_rounded(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(100, 10_000, 30) * 10
    scores = rng.lognormal(0, 1, 30)
    kept = allocation.budgets(scores, sizes, "0.5", "0.6")
    assert np.abs(np.array(kept) - bisected(scores, sizes, 0.5, 0.6)).max() <= 1
    assert sum(kept) == round(0.5 * sizes.sum())


def test_budgets_by_hand():
    # Floors 40 + 40, budget 100: 20 to share 3 : 1.
    assert allocation.budgets([3, 1], [100, 100], "0.5", "0.6") == [55, 45]
    # The first is full at 100, so the second gets the rest.
    assert allocation.budgets([1000, 1], [100, 300], "0.5", "0.9") == [100, 100]
    # p = p_max leaves nothing to share.
    assert allocation.budgets([5, 1], [100, 300], "0.5", "0.5") == [50, 150]
    # What positive scores cannot take goes to a zero score.
    assert allocation.budgets([1, 0], [10, 10], "0.1", "0.9") == [10, 8]


def test_budgets_bear_scores_of_any_scale():
    small = allocation.budgets([3e-300, 1e-300], [100, 100], "0.5", "0.6")
    large = allocation.budgets([3e300, 1e300], [100, 100], "0.5", "0.6")
    assert small == large == [55, 45]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0, float("nan")], "right is not finite"),
        ([1.0, float("inf")], "right is not finite"),
        ([-1.0, 1.0], "left is negative"),
        ([0.0, 0.0], "all scores are zero"),
    ],
)
def test_scores_without_a_meaning_are_errors_that_name_the_group(scores, said):
    with pytest.raises(AllocationError, match=said):
        allocation.budgets(scores, [10, 10], "0.5", "0.6", names=["left", "right"])


@pytest.mark.parametrize("sparsity", ["1.0", "-0.1", "1.2", "half", 1, None, float("nan")])
def test_sparsities_outside_0_to_1_are_errors(sparsity):
    with pytest.raises(AllocationError, match="fraction removed"):
        allocation.budgets([1, 1], [10, 10], sparsity, "0.99")


def test_p_above_p_max_is_an_error():
    with pytest.raises(AllocationError, match="above max_sparsity"):
        allocation.budgets([1, 1], [10, 10], "0.6", "0.5")


def table():
    rows = [
        ("vision", "v.0", "v.0.a", 100, 4.0),
        ("vision", "v.0", "v.0.b", 50, 2.0),
        ("vision", "v.1", "v.1.a", 100, 1.0),
        ("language", "l.0", "l.0.a", 150, 1.0),
    ]
    return pd.DataFrame(rows, columns=["tower", "block", "name", "n_weights", "score"])


@pytest.mark.parametrize("granularity", ["matrix", "block", "tower"])
@pytest.mark.parametrize("method", ["uniform", "ecoflap", "owl"])
def test_plans_keep_exactly_the_budget(method, granularity):
    plan = allocation.allocate(table(), sparsity="0.5", method=method, granularity=granularity)
    assert plan["keep"].sum() == 200
    assert np.allclose(plan["sparsity"], 1 - plan["keep"] / plan["n_weights"])
    if method == "ecoflap":
        assert (plan["sparsity"] <= 0.6 + 1e-9).all()


def test_owl_by_its_published_formula_for_blocks_of_one_size():
    """The lines of the paper: scale to [0, 2 lambda], centre, add to the share that stays."""
    ratios = np.array([0.01, 0.05, 0.02, 0.03])
    scaled = (ratios - ratios.min()) * (1 / (ratios.max() - ratios.min()) * 0.08 * 2)
    shares = scaled - np.mean(scaled) + (1 - 0.6)
    kept = allocation.outlier_weighted(ratios, [10_000] * 4, "0.6")
    assert np.abs(np.array(kept) - 10_000 * shares).max() <= 1
    assert sum(kept) == 16_000
    with pytest.raises(AllocationError, match="OWL would keep"):
        allocation.outlier_weighted(ratios, [10_000] * 4, "0.95")


def test_a_block_shares_its_sparsity_among_its_matrices():
    plan = allocation.allocate(table(), sparsity="0.5", max_sparsity="0.6").set_index("name")
    # Floors 60, 40, 60 and scores 6, 1, 1 share 40: 30, 5, 5.
    assert plan.loc[["v.0.a", "v.0.b"], "keep"].tolist() == [60, 30]
    assert plan.loc[["v.1.a", "l.0.a"], "keep"].tolist() == [45, 65]


def test_mean_reduction_divides_by_the_size_of_the_group():
    frame = table()
    frame["score"] = frame["n_weights"].astype(float)  # the same score per weight everywhere
    plan = allocation.allocate(frame, sparsity="0.5", max_sparsity="0.6", reduction="mean")
    blocks = plan.groupby("block")[["keep", "n_weights"]].sum()
    # Every group gets its floor, 0.4 n, and an equal third of what is left of 200.
    assert sorted((blocks["keep"] - 0.4 * blocks["n_weights"]).round()) == [13, 13, 14]


def test_unknown_names_come_with_a_suggestion():
    with pytest.raises(AllocationError, match="Did you mean 'ecoflap'"):
        allocation.allocate(table(), sparsity="0.5", method="ecoflab")
    with pytest.raises(AllocationError, match="Did you mean 'block'"):
        allocation.allocate(table(), sparsity="0.5", granularity="blocks")


def test_allocation_needs_no_torch():
    code = "import sys, ecoflap.allocation; sys.exit('torch' in sys.modules)"
    path = allocation.__file__.rpartition("/ecoflap/")[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=path, check=False).returncode == 0


def test_n_of_m_under_owl_and_uniform():
    blocks = pd.DataFrame({"tower": "t", "block": range(3), "name": list("abc"), "n_weights": 800})
    plan = allocation.allocate(blocks.assign(score=[8, 0, 4]), sparsity="0.5", method="owl", of=16)
    # Shares of 0.58, 0.42, 0.5: 9.28, 6.72 and 8 of 16; the one left over goes to the second.
    assert plan["keep"].tolist() == [450, 350, 400]
    plan = allocation.allocate(blocks, sparsity="0.5", method="uniform", of=4)
    assert plan["keep"].tolist() == [400] * 3
    with pytest.raises(AllocationError, match=r"sparsity 0\.3 with the same N:4"):
        allocation.allocate(blocks, sparsity="0.3", method="uniform", of=4)
    with pytest.raises(AllocationError, match="800 weights with N:7"):
        allocation.allocate(blocks.assign(score=1.0), sparsity="0.5", of=7)


def test_owl_without_outliers_names_the_groups():
    with pytest.raises(AllocationError, match="all scores are zero, from vision/v.0"):
        allocation.allocate(table().assign(score=0.0), sparsity="0.5", method="owl")


def test_a_matrix_that_stands_twice_is_told():
    with pytest.raises(AllocationError, match="stands twice in the scores"):
        allocation.allocate(pd.concat([table()] * 2), sparsity="0.5")


def test_an_allocation_refuses_the_scores_of_another_estimator():
    frame = table()
    frame.attrs["estimator"] = "gradnorm"
    allocation.allocate(frame, sparsity="0.5")
    with pytest.raises(AllocationError, match="owl with scores of the estimator gradnorm"):
        allocation.allocate(frame, sparsity="0.5", method="owl")


@pytest.mark.parametrize(
    "keep",
    [lambda groups: [int(n) for n in groups.sizes], lambda groups: [200], lambda groups: [0]],
)
def test_a_method_of_ones_own_is_held_to_the_budget(keep, monkeypatch):
    monkeypatch.setitem(allocation.METHODS, "own", allocation.methods.Method(keep))
    with pytest.raises(AllocationError, match="allocation own keeps .*200 in 3 groups"):
        allocation.allocate(table(), sparsity="0.5", method="own")


@pytest.mark.parametrize(
    ("change", "settings", "told"),
    [
        ({}, {"of": "8"}, "N:M with M = '8'.*a whole number"),
        ({}, {"of": True}, "N:M with M = True.*a whole number"),
        ({}, {"of": 8.0}, "a whole number"),
        ({}, {"method": ["ecoflap"]}, "unknown allocation"),
        ({"tower": None}, {}, "tower is empty in a row"),
        ({"block": None}, {}, "block is empty in a row"),
        ({"score": "high"}, {}, "score holds .*numbers"),
        ({"n_weights": "8"}, {}, "n_weights holds .*numbers"),
    ],
)
def test_arguments_of_another_kind_are_told(change, settings, told):
    scores = pd.DataFrame(
        {"tower": "language", "block": ["a", "b"], "name": ["x", "y"], "n_weights": 8, "score": 1.0}
    ).assign(**change)
    with pytest.raises(AllocationError, match=told):
        ecoflap.allocate(scores, sparsity="0.5", **settings)


@pytest.mark.parametrize("scores", [None, [1, 2], {"score": 1}])
def test_what_is_no_table_of_scores_is_told(scores):
    with pytest.raises(AllocationError, match="scores of the type"):
        ecoflap.allocate(scores, sparsity="0.5")
