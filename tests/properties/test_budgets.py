"""Budgets over a thousand random cases: sum, floor, ceiling, monotone, permutation."""

import math
from fractions import Fraction

from ecoflap.allocation import budgets, uniform
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
    slack = 0 if sum(ceils) <= sum(kept) else 1  # only where the budget is too tight for it
    for (score, size), keep, ceil in zip(drawn, kept, ceils, strict=True):
        assert ceil - slack <= keep <= size
        for (other, other_size), other_keep in zip(drawn, kept, strict=True):
            if other_size == size and other > score:
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
