"""Criteria against brute force and dense linear algebra."""

import itertools

import pytest
import torch

from bench import literal
from ecoflap.criteria import admm, apply, prune_matrix
from ecoflap.criteria._selection import Selection
from ecoflap.errors import ConfigError, PruningError


def matrices(n_out=6, n_in=20, tokens=60):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(n_out, n_in, generator=generator)
    scales = torch.logspace(-1, 1, n_in)[torch.randperm(n_in, generator=generator)]
    return weight, torch.randn(tokens, n_in, generator=generator) * scales


def test_wanda_by_sorting_each_row():
    weight, inputs = matrices()
    _, mask = prune_matrix(weight, inputs, sparsity=0.35, criterion="wanda", group="row")
    for row in range(len(weight)):
        metric = [abs(weight[row, j].item()) * inputs[:, j].norm().item() for j in range(20)]
        expected = set(sorted(range(20), key=metric.__getitem__)[:7])
        assert set(mask[row].nonzero().flatten().tolist()) == expected


def test_wanda_and_magnitude_by_sorting_the_matrix():
    weight, inputs = matrices()
    _, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="wanda", group="matrix")
    metric = weight.abs() * inputs.norm(dim=0)
    assert torch.equal(
        mask.flatten().nonzero().flatten(), metric.flatten().argsort()[:60].sort()[0]
    )
    _, mask = prune_matrix(weight, None, sparsity=0.5, criterion="magnitude")
    assert torch.equal(
        mask.flatten().nonzero().flatten(), weight.abs().flatten().argsort()[:60].sort()[0]
    )


def reference_sparsegpt(weight, inputs, sparsity, ridge=None):
    """The algorithm with a fresh dense inverse for each column instead of a Cholesky factor.

    Eliminating columns from the left, the inverse of the Hessian of the columns that remain gives
    both the metric's denominator and the update (optimal brain surgeon). One block of columns.
    """
    n_out, n_in = weight.shape
    hessian = (inputs.T @ inputs).double()
    added = 0.01 * hessian.diagonal().mean() if ridge is None else ridge * hessian.diagonal()
    hessian += added * torch.eye(n_in, dtype=torch.float64)
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(n_in)]
    denominators = torch.stack([inverse[0, 0] for inverse in inverses])
    w = weight.double().clone()
    metric = w.square() / denominators
    mask = torch.zeros_like(w, dtype=torch.bool).flatten()
    mask[metric.flatten().argsort()[: round(sparsity * w.numel())]] = True
    mask = mask.reshape(w.shape)
    for j in range(n_in):
        error = torch.where(mask[:, j], w[:, j], 0) / inverses[j][0, 0]
        w[:, j:] -= error[:, None] * inverses[j][0]
    return w.masked_fill(mask, 0), mask


@pytest.mark.parametrize("ridge", [None, "0.1", 2])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_sparsegpt_against_dense_inverses(sparsity, ridge):
    weight, inputs = matrices(n_in=24)
    expected, expected_mask = reference_sparsegpt(weight, inputs, sparsity, ridge and float(ridge))
    pruned, mask = prune_matrix(
        weight, inputs, sparsity=sparsity, criterion="sparsegpt", ridge=ridge
    )
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(pruned.double(), expected, atol=1e-4)


@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (1, 24), (5, 1)])
def test_sparsegpt_of_a_row_or_a_column_against_dense_inverses(n_out, n_in):
    weight, inputs = matrices(n_out, n_in)
    expected, expected_mask = reference_sparsegpt(weight, inputs, 0.4)
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.4, criterion="sparsegpt")
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(pruned.double(), expected, atol=1e-4)


@pytest.mark.parametrize(("n_out", "n_in"), [(40, 300), (40, 257), (1, 300)])
def test_sparsegpt_with_several_blocks_of_columns_against_the_literal_one(n_out, n_in):
    weight, inputs = matrices(n_out, n_in, tokens=900)
    linear = torch.nn.Linear(n_in, n_out, bias=False).requires_grad_(False)
    linear.weight.copy_(weight)
    plain = literal.SparseGPT(linear, by_row=False)
    plain.add(inputs[None])
    plain.prune(0.5)
    threads = torch.get_num_threads()
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="sparsegpt")
    assert torch.get_num_threads() == threads
    assert torch.equal(mask, linear.weight == 0)
    assert torch.allclose(pruned, linear.weight, rtol=0, atol=1e-4 * weight.std())


def test_sparsegpt_updates_reduce_the_output_error():
    weight, inputs = matrices(n_out=40, n_in=300, tokens=900)  # three blocks of columns
    inputs[:, 150:] = 0.9 * inputs[:, :150] + 0.1 * inputs[:, 150:]  # what the update is for
    errors = {}
    for criterion in ("wanda", "sparsegpt"):
        pruned, _ = prune_matrix(weight, inputs, sparsity=0.5, criterion=criterion)
        errors[criterion] = ((weight - pruned) @ inputs.T).norm()
    assert errors["sparsegpt"] < 0.9 * errors["wanda"]


def test_sparsegpt_with_features_that_never_fire():
    weight, inputs = matrices()
    inputs[:, 4] = 0
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="sparsegpt")
    assert mask[:, 4].all()
    assert torch.isfinite(pruned).all()


@pytest.mark.parametrize("criterion", ["sparsegpt", "admm"])
def test_a_ridge_does_not_depend_on_the_scale_of_features(criterion):
    weight, inputs = matrices()
    scale = 2.0 ** torch.arange(-10, 10)
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion=criterion, ridge="0.3")
    scaled, scaled_mask = prune_matrix(
        weight / scale, inputs * scale, sparsity=0.5, criterion=criterion, ridge="0.3"
    )
    assert torch.equal(scaled_mask, mask)
    assert torch.allclose(scaled * scale, pruned, atol=1e-4)


@pytest.mark.parametrize(
    ("criterion", "ridge", "said"),
    [
        ("wanda", "0.1", "a ridge with wanda. Allowed: a ridge with sparsegpt or admm"),
        ("sparsegpt", 0, "a ridge of 0. Allowed: a number above 0"),
        ("admm", "inf", "a ridge of 'inf'"),
        ("admm", [0.1], r"a ridge of \[0.1\]"),
        ("sparsegpt", "a tenth", "a ridge of 'a tenth'"),
    ],
)
def test_ridges_that_cannot_be_are_told(criterion, ridge, said):
    weight, inputs = matrices()
    with pytest.raises(PruningError, match=said):
        prune_matrix(weight, inputs, sparsity=0.5, criterion=criterion, ridge=ridge)


def reference_admm(weight, inputs, removed, of=None, ridge=0.1):
    """The published steps in float64, with a general inverse and sorted entries.

    Args:
        weight: [n_out, n_in].
        inputs: [n_tokens, n_in].
        removed: How many entries go of each group at a step, given the step.
        of: Columns per group; all of them if None.
        ridge: What is added to each normalised diagonal entry.
    """
    gram = (inputs.T @ inputs).double()
    n = gram.diagonal().sqrt() + 1e-8
    c = gram / torch.outer(n, n) + ridge * torch.eye(len(n), dtype=torch.float64)
    inverse = torch.linalg.inv(c + torch.eye(len(n), dtype=torch.float64))
    b = weight.double() * n
    v, u = b, torch.zeros_like(b)
    for step in range(1, 21):
        a = v + u
        z = a.reshape(-1, of or a.shape[1]).clone()
        for row in z:
            row[row.abs().argsort()[: removed(step)]] = 0
        z = z.reshape(a.shape)
        u = a - z
        v = (b @ c + z - u) @ inverse
    return z / n, z == 0


@pytest.mark.parametrize("ridge", [None, 0.5])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_admm_against_its_steps_in_float64(sparsity, ridge):
    weight, inputs = matrices(n_in=24)
    grown = {t: round(sparsity * (1 - max(0, 1 - t / 15) ** 3) * 24) for t in range(1, 21)}
    expected, expected_mask = reference_admm(weight, inputs, grown.__getitem__, ridge=ridge or 0.1)
    pruned, mask = prune_matrix(weight, inputs, sparsity=sparsity, criterion="admm", ridge=ridge)
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(pruned.double(), expected, atol=1e-4)


def test_admm_with_n_of_m_against_its_steps_in_float64():
    weight, inputs = matrices(n_in=24)
    grown = {t: round((1 - max(0, 1 - t / 15) ** 3) * 2) for t in range(1, 21)}
    expected, expected_mask = reference_admm(weight, inputs, grown.__getitem__, of=4)
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="admm", pattern="2:4")
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(pruned.double(), expected, atol=1e-4)


def least_error(row, gram, kept):
    """The smallest output error of all masks, each with its best weights."""
    columns = torch.tensor(list(itertools.combinations(range(len(row)), kept)))
    within = gram[columns[:, :, None], columns[:, None]]
    wanted = (gram @ row)[columns]
    best = torch.linalg.solve(within, wanted.unsqueeze(-1)).squeeze(-1)
    return (row @ gram @ row - (wanted * best).sum(1)).min()


def test_admm_is_near_the_best_of_all_masks_and_better_than_sparsegpt():
    """200 rows of 6 to 12 weights whose features correlate by 0.2 to 0.5, half of them removed."""
    errors = {"best": 0.0, "admm": 0.0, "sparsegpt": 0.0}
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(6, 13, (), generator=generator))
        shared = 0.5 * seed / 200
        inputs = (1 - shared) * torch.randn(100, n, generator=generator)
        inputs += shared * torch.randn(100, 1, generator=generator)
        inputs *= torch.logspace(-0.5, 0.5, n)
        weight = torch.randn(1, n, generator=generator)
        gram = (inputs.T @ inputs).double()
        errors["best"] += least_error(weight[0].double(), gram, n // 2)
        for criterion in ("admm", "sparsegpt"):
            sparsity = 1 - (n // 2) / n
            pruned, mask = prune_matrix(weight, inputs, sparsity=sparsity, criterion=criterion)
            assert mask.sum() == n - n // 2
            change = (weight - pruned)[0].double()
            errors[criterion] += change @ gram @ change
    assert errors["best"] <= errors["admm"] <= 1.05 * errors["best"]
    assert errors["admm"] < errors["sparsegpt"]


@pytest.mark.parametrize("tokens", [1, 5, 60])
def test_admm_with_features_that_never_fire_and_fewer_tokens_than_features(tokens):
    weight, inputs = matrices(tokens=tokens)
    inputs[:, 4] = 0
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="admm")
    assert mask[:, 4].all()
    assert (mask.sum(1) == 10).all()
    assert torch.isfinite(pruned).all()
    assert pruned[~mask].abs().max() < 10 * weight.abs().max()


def test_admm_with_what_are_no_sums_of_squares_is_told():
    weight, _ = matrices(n_in=2)
    statistics = torch.tensor([[1.0, -9.0], [-9.0, 1.0]])
    with pytest.raises(PruningError, match="not positive definite"):
        apply(admm, weight, statistics, Selection(0.5))


def test_ria_by_the_shares_of_each_row_and_column():
    weight, inputs = matrices()
    _, mask = prune_matrix(weight, inputs, sparsity=0.35, criterion="ria", group="row")
    size = weight.abs().double().tolist()
    columns = [sum(row[j] for row in size) for j in range(20)]
    for i, row in enumerate(size):
        metric = [
            (row[j] / columns[j] + row[j] / sum(row)) * inputs[:, j].double().norm().item() ** 0.5
            for j in range(20)
        ]
        expected = set(sorted(range(20), key=metric.__getitem__)[:7])
        assert set(mask[i].nonzero().flatten().tolist()) == expected


def test_ria_with_rows_and_columns_of_zeros():
    weight, inputs = matrices()
    weight[2], weight[:, 5] = 0, 0
    _, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="ria")
    assert (mask.sum(1) == 10).all()
    assert mask[[0, 1, 3, 4, 5], 5].all()


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 4), (5, 10)])
def test_n_of_m_by_sorting_each_group(kept, of):
    weight, inputs = matrices()
    sparsity = 1 - kept / of
    metrics = {"magnitude": weight.abs(), "wanda": weight.abs() * inputs.norm(dim=0)}
    for criterion, metric in metrics.items():
        for pattern in (f"{kept}:{of}", f"n:{of}"):
            _, mask = prune_matrix(
                weight, inputs, sparsity=sparsity, criterion=criterion, pattern=pattern
            )
            for i in range(6):
                for start in range(0, 20, of):
                    group = range(start, start + of)
                    expected = sorted(group, key=lambda j: metric[i, j])[: of - kept]
                    assert [j for j in group if mask[i, j]] == sorted(expected)


def test_sparsegpt_with_n_of_m_against_dense_inverses():
    """Groups of columns are chosen one after another, each after the updates of those before."""
    weight, inputs = matrices(n_in=24)
    hessian = (inputs.T @ inputs).double()
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(24)]
    w, expected = weight.double().clone(), torch.zeros(6, 24, dtype=torch.bool)
    for j in range(24):
        if j % 4 == 0:
            scale = torch.stack([inverses[k][0, 0] for k in range(j, j + 4)])
            lowest = (w[:, j : j + 4].square() / scale).argsort(dim=1)[:, :2]
            expected[:, j : j + 4].scatter_(1, lowest, True)
        error = torch.where(expected[:, j], w[:, j], 0) / inverses[j][0, 0]
        w[:, j:] -= error[:, None] * inverses[j][0]
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="sparsegpt", pattern="2:4")
    assert torch.equal(mask, expected)
    assert torch.allclose(pruned.double(), w.masked_fill(expected, 0), atol=1e-4)


def test_sparsegpt_with_groups_wider_than_its_blocks_of_columns():
    weight, inputs = matrices(n_out=3, n_in=512, tokens=700)
    _, mask = prune_matrix(weight, inputs, sparsity=0.5, criterion="sparsegpt", pattern="128:256")
    assert (mask.reshape(3, 2, 256).sum(-1) == 128).all()


@pytest.mark.parametrize(
    ("pattern", "sparsity", "said"),
    [
        ("2;4", 0.5, "pattern '2;4'.*2:4"),
        ("5:4", 0.5, "pattern '5:4'"),
        ("2:4", 0.6, r"sparsity 0\.6 with the pattern 2:4.*1 - N/4"),
        ("n:4", 0.6, r"sparsity 0\.6 with the pattern n:4"),
        ("4:8", 0.5, "20 columns.*multiples of 8"),
    ],
)
def test_patterns_that_cannot_be_are_told(pattern, sparsity, said):
    weight, inputs = matrices()
    with pytest.raises(PruningError, match=said):
        prune_matrix(weight, inputs, sparsity=sparsity, criterion="wanda", pattern=pattern)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "ria", "admm"])
def test_sparsity_0_changes_nothing_and_1_removes_all(criterion):
    weight, inputs = matrices()
    pruned, mask = prune_matrix(weight, inputs, sparsity=0.0, criterion=criterion)
    assert torch.equal(pruned, weight)
    assert not mask.any()
    pruned, mask = prune_matrix(weight, inputs, sparsity=1.0, criterion=criterion)
    assert mask.all()
    assert not pruned.any()


def test_half_precision_weights_keep_their_dtype():
    weight, inputs = matrices()
    for criterion in ("magnitude", "wanda", "sparsegpt", "ria", "admm"):
        pruned, _ = prune_matrix(
            weight.bfloat16(), inputs.bfloat16(), sparsity=0.5, criterion=criterion
        )
        assert pruned.dtype == torch.bfloat16


def test_updates_that_float16_cannot_hold_are_refused():
    """Of two equal inputs the second takes over what the first did: 50,000 + 40,000 > 65,504."""
    weight = torch.tensor([[40000.0, 50000.0]])
    inputs = torch.ones(8, 2)
    pruned, _ = prune_matrix(weight, inputs, sparsity=0.5, criterion="sparsegpt")
    assert pruned[0, 1] > torch.finfo(torch.float16).max
    with pytest.raises(PruningError, match="updated are not finite in float16"):
        prune_matrix(weight.half(), inputs, sparsity=0.5, criterion="sparsegpt")


def test_bad_arguments_say_what_is_allowed():
    weight, inputs = matrices()
    with pytest.raises(ConfigError, match="Did you mean 'wanda'"):
        prune_matrix(weight, inputs, sparsity=0.5, criterion="wandas")
    with pytest.raises(PruningError, match=r"\[n_tokens, 20\]"):
        prune_matrix(weight, inputs[:, :3], sparsity=0.5, criterion="wanda")
    with pytest.raises(PruningError, match="no activations"):
        prune_matrix(weight, None, sparsity=0.5, criterion="wanda")
    with pytest.raises(PruningError, match="unknown group 'rows'"):
        prune_matrix(weight, inputs, sparsity=0.5, criterion="wanda", group="rows")
    with pytest.raises(PruningError, match=r"sparsity 1\.2"):
        prune_matrix(weight, inputs, sparsity=1.2, criterion="wanda")
    with pytest.raises(PruningError, match="not finite"):
        prune_matrix(weight * float("nan"), inputs, sparsity=0.5, criterion="wanda")


@pytest.mark.parametrize(
    ("weight", "sparsity", "said"),
    [
        (torch.ones(4, 4), "0.5", "sparsity '0.5'"),
        (torch.ones(4, 4), None, "sparsity None"),
        (torch.ones(4), 0.5, "weight of shape"),
        (torch.ones(4, 4, dtype=torch.long), 0.5, "type torch.int64"),
    ],
)
def test_arguments_of_the_wrong_type_are_told(weight, sparsity, said):
    with pytest.raises(PruningError, match=said):
        prune_matrix(weight, torch.ones(3, 4), sparsity=sparsity, criterion="wanda")
