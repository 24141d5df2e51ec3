"""Budgets over a thousand random cases: sum, floor, ceiling, monotone, permutation."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecoflap.allocation import NEGLIGIBLE, allocate, budgets, uniform

groups = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=1e30, allow_nan=False),
        st.one_of(st.integers(1, 5), st.integers(1, 10**9)),
    ),
    min_size=1,
    max_size=40,
)
sparsities = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted)


@settings(max_examples=1000, deadline=None)
@given(groups, sparsities)
def test_exact_sum_floor_ceiling_and_order(drawn, pair):
    scores, sizes = zip(*drawn, strict=True)
    assume(any(score > 0 for score in scores))
    p, p_max = (Fraction(value, 100) for value in pair)
    kept = budgets(scores, sizes, float(p), float(p_max))
    assert sum(kept) == round((1 - p) * sum(sizes))
    ceils = [math.ceil((1 - p_max) * n) for n in sizes]
    negligible = NEGLIGIBLE * max(scores)  # scores below this count as 0
    slack = 0 if sum(ceils) <= sum(kept) else 1  # only where the budget is too tight for it
    for (score, size), keep, ceil in zip(drawn, kept, ceils, strict=True):
        assert ceil - slack <= keep <= size
        for (other, other_size), other_keep in zip(drawn, kept, strict=True):
            if other_size == size and other > max(score, negligible):
                assert other_keep >= keep


@settings(max_examples=200, deadline=None)
@given(groups, sparsities, st.randoms(use_true_random=False))
def test_the_order_of_groups_does_not_matter(drawn, pair, source):
    assume(len({score for score, _ in drawn}) == len(drawn))  # ties go by position
    assume(any(score > 0 for score, _ in drawn))
    p, p_max = (value / 100 for value in pair)
    shuffled = source.sample(range(len(drawn)), len(drawn))
    scores, sizes = zip(*drawn, strict=True)
    kept = budgets(scores, sizes, p, p_max)
    moved = budgets([scores[i] for i in shuffled], [sizes[i] for i in shuffled], p, p_max)
    assert [kept[i] for i in shuffled] == moved


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(0, 99))
def test_uniform_keeps_the_same_share_everywhere(sizes, percent):
    p = Fraction(percent, 100)
    kept = uniform(sizes, float(p))
    assert sum(kept) == round((1 - p) * sum(sizes))
    assert all(abs(keep - (1 - p) * n) <= 1 for keep, n in zip(kept, sizes, strict=True))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 3), st.integers(1, 500)), min_size=1),
    st.sampled_from([4, 8, 16]),
    st.data(),
)
def test_mixed_n_of_m_is_the_nearest_below_the_budget(drawn, of, data):
    assume(any(score > 0 for score, _, _ in drawn))
    p, p_max = sorted(data.draw(st.tuples(st.integers(0, 99), st.integers(0, 99))))
    rows = [
        {"tower": "t", "block": i, "name": f"{i}.{j}", "n_weights": of * units, "score": score}
        for i, (score, matrices, units) in enumerate(drawn)
        for j in range(matrices)
    ]
    settings = {"sparsity": p / 100, "max_sparsity": p_max / 100}
    plan = allocate(pd.DataFrame(rows), **settings, of=of)
    share = of * (1 - allocate(pd.DataFrame(rows), **settings)["group_sparsity"])
    n = plan["keep"] * of / plan["n_weights"]
    assert (n == n.round()).all()
    assert ((n - share).abs() < 1 + 1e-6).all()
    assert n.groupby(plan["block"]).nunique().eq(1).all()
    total = round((1 - Fraction(p, 100)) * int(plan["n_weights"].sum()))
    left = total - plan["keep"].sum()
    rounded_down = n < share - 1e-6
    steps = plan[rounded_down].groupby("block")["n_weights"].sum() // of
    assert left >= 0
    assert not len(steps) or left < steps.min()


def test_mixed_n_of_m_by_hand():
    table = pd.DataFrame(
        {
            "tower": "t",
            "block": range(4),
            "name": list("abcd"),
            "n_weights": 80,
            "score": [1, 2, 3, 6],
        }
    )
    # Above a floor of 2/8 (20 weights each) 80 weights go by score: 6.7, 13.3, 20 and 40, that is
    # N = 2.67, 3.33, 4 and 6; what is rounded off, one N, goes to the largest remainder.
    plan = allocate(table, sparsity=0.5, max_sparsity=0.75, of=8)
    assert np.array_equal(plan["keep"], [30, 30, 40, 60])
