"""Masks have exact counts, whatever the ties; packing is a round trip."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecoflap.criteria import prune_matrix
from ecoflap.masks import pack_mask, unpack_mask

shapes = st.tuples(st.integers(1, 12), st.integers(1, 40))


@settings(max_examples=300, deadline=None)
@given(shapes, st.floats(0, 1), st.sampled_from(["row", "matrix"]), st.integers(1, 4))
def test_wanda_counts_are_exact_with_ties(shape, sparsity, group, levels):
    generator = torch.Generator().manual_seed(shape[0] * 100 + shape[1])
    weight = torch.randint(-levels, levels + 1, shape, generator=generator).float()
    inputs = torch.randint(0, 2, (5, shape[1]), generator=generator).float()
    pruned, mask = prune_matrix(weight, inputs, sparsity=sparsity, criterion="wanda", group=group)
    if group == "row":
        assert (mask.sum(1) == round(sparsity * shape[1])).all()
    else:
        assert mask.sum() == round(sparsity * weight.numel())
    assert torch.equal(pruned, torch.where(mask, 0, weight))


@settings(max_examples=100, deadline=None)
@given(shapes, st.floats(0, 1))
def test_magnitude_and_sparsegpt_counts_are_exact(shape, sparsity):
    generator = torch.Generator().manual_seed(shape[0] * 100 + shape[1])
    weight = torch.randn(shape, generator=generator)
    inputs = torch.randn(80, shape[1], generator=generator)
    for criterion in ("magnitude", "sparsegpt"):
        pruned, mask = prune_matrix(weight, inputs, sparsity=sparsity, criterion=criterion)
        assert mask.sum() == round(sparsity * weight.numel())
        assert (pruned[mask] == 0).all()


@settings(max_examples=100, deadline=None)
@given(shapes, st.floats(0, 1), st.sampled_from(["row", "matrix"]))
def test_admm_counts_are_exact(shape, sparsity, group):
    generator = torch.Generator().manual_seed(shape[0] * 100 + shape[1])
    weight = torch.randn(shape, generator=generator)
    inputs = torch.randn(8, shape[1], generator=generator)
    pruned, mask = prune_matrix(weight, inputs, sparsity=sparsity, criterion="admm", group=group)
    rows = mask if group == "row" else mask.reshape(1, -1)
    assert (rows.sum(1) == round(sparsity * rows.shape[1])).all()
    assert (pruned[mask] == 0).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_n_of_m_counts_are_exact_with_ties(n_out, n_groups, data):
    of = data.draw(st.integers(1, 12))
    kept = data.draw(st.integers(1, of))
    generator = torch.Generator().manual_seed(n_out)
    weight = torch.randint(-1, 2, (n_out, n_groups * of), generator=generator).float()
    inputs = torch.randn(200, n_groups * of, generator=generator)
    for criterion in ("magnitude", "wanda", "sparsegpt", "ria", "admm"):
        _, mask = prune_matrix(
            weight, inputs, sparsity=1 - kept / of, criterion=criterion, pattern=f"{kept}:{of}"
        )
        assert (mask.reshape(n_out, n_groups, of).sum(-1) == of - kept).all()


@given(shapes, st.integers(0, 2**32 - 1))
def test_packed_masks_come_back(shape, seed):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_mask(mask)
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack_mask(packed, shape), mask)
