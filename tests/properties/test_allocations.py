"""Every allocation over random models: exact sum, bounds, guard, the same again in any order."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecoflap.allocation import (
    GRANULARITIES,
    METHODS,
    allocate,
    budget,
    plan_from,
    shares,
    stack_of,
)
from ecoflap.errors import InfeasibleError

matrices = st.lists(
    st.tuples(
        st.sampled_from(["vision", "language"]),
        st.integers(0, 3),  # block
        st.integers(1, 30),  # n_out
        st.integers(1, 30),  # n_in
        st.floats(1e-6, 1e6),  # scale of the importances
        st.integers(0, 4),  # how many values they take; 0: any
    ),
    min_size=1,
    max_size=12,
)


def frame_of(drawn, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for index, (tower, block, n_out, n_in, scale, distinct) in enumerate(drawn):
        n = n_out * n_in
        values = rng.integers(0, distinct, n) + 1.0 if distinct else rng.lognormal(0, 2, n)
        bits = (scale * values).astype(np.float32).view(np.int32) >> 16
        buckets, counts = np.unique(bits, return_counts=True)
        rows.append(
            {
                "tower": tower,
                "block": f"{tower}.{block}",
                "name": str(index),
                "n_weights": n,
                "n_out": n_out,
                "n_in": n_in,
                "score": scale * values.sum(),
                "buckets": buckets.tolist(),
                "counts": counts.tolist(),
            }
        )
    return pd.DataFrame(rows)


def of_groups(plan, granularity):
    return plan.groupby(GRANULARITIES[granularity])[["keep", "n_weights"]].sum()


# OWL, DLP and AlphaPruning move sparsities by up to 0.3 or to 1.5 p, and refuse what is outside.
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(
    matrices,
    st.integers(31, 66),
    st.integers(0, 33),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_sum_bounds_guard_and_order(method, granularity, drawn, percent, margin, seed, source):
    frame = frame_of(drawn, seed)
    p, p_max = Fraction(percent, 100), Fraction(percent + margin, 100)
    options = {"method": method, "granularity": granularity}
    options |= {"sparsity": float(p), "max_sparsity": float(p_max)}
    plan = allocate(frame, **options)
    assert plan["keep"].sum() == round((1 - p) * int(frame["n_weights"].sum()))
    assert (plan["keep"] >= 0).all()
    assert (plan["keep"] <= plan["n_weights"]).all()
    groups = of_groups(plan, granularity)
    if METHODS[method].bounded:
        floors = [math.floor((1 - p_max) * int(n)) for n in groups["n_weights"]]
        assert (groups["keep"] >= floors).all()
    assert allocate(frame, **options).equals(plan)
    order = source.sample(range(len(frame)), len(frame))
    moved = of_groups(allocate(frame.iloc[order], **options), granularity)
    # Equal remainders are told apart by position alone.
    assert (moved["keep"] - groups["keep"]).abs().max() <= 1
    assert moved["keep"].sum() == groups["keep"].sum()


@pytest.mark.parametrize("inside", METHODS)
@settings(max_examples=20, deadline=None)
@given(matrices, st.integers(31, 66), st.integers(0, 2**32))
def test_stacks_keep_exactly_their_shares(inside, drawn, percent, seed):
    frame = frame_of(drawn, seed)
    p = float(Fraction(percent, 100))
    stacks = frame["block"].map(stack_of)
    sizes = frame.groupby(stacks)["n_weights"].sum()
    each = allocate(frame, sparsity=p, method=inside, budget="stack")
    kept = each.groupby(stacks)["keep"].sum()
    assert kept.to_dict() == {stack: budget([n], p) for stack, n in sizes.items()}

    first = allocate(frame, sparsity=p, max_sparsity="+0.02", budget="model")
    assume(first.groupby(stacks)["keep"].sum().min() > 0)  # what keeps nothing has no sparsity
    given = shares(first)
    assert {stack: budget([n], given[stack]) for stack, n in sizes.items()} == (
        first.groupby(stacks)["keep"].sum().to_dict()
    )
    two = {"score": "s", "max_sparsity": "+0.02", "inside": {"method": inside, "score": "s"}}
    try:
        plan = plan_from({"s": frame}, two, p)
    except InfeasibleError:
        assert inside in ("owl", "dlp", "alphapruning")  # a stack that keeps nearly all
        return
    assert (plan.groupby(stacks)["keep"].sum() == first.groupby(stacks)["keep"].sum()).all()
    assert (plan["keep"] <= plan["n_weights"]).all()
    assert (plan["keep"] >= 0).all()
