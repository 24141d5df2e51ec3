"""Each allocation against its published formula or a solver that works on the elements."""

import numpy as np
import pandas as pd
import pytest

from ecoflap import allocation, artifacts
from ecoflap.errors import AllocationError

RESOLUTION = 1 / 128  # of a bucket


def histogram(values):
    """The definition of a bucket: the top 16 bits of the float32 pattern."""
    bits = np.asarray(values, dtype=np.float32).view(np.int32) >> 16
    buckets, counts = np.unique(bits, return_counts=True)
    return buckets.tolist(), counts.tolist()


def table(elements, **columns):
    """One matrix per list of elements, in blocks and towers of the names t.b.m."""
    rows = []
    for name, values in elements.items():
        buckets, counts = histogram(values)
        tower, block, _ = name.split(".")
        row = {"tower": tower, "block": f"{tower}.{block}", "name": name, "n_weights": len(values)}
        row |= {"score": float(np.sum(values)), "buckets": buckets, "counts": counts}
        rows.append(row)
    return pd.DataFrame(rows).assign(**columns)


def drawn(seed, blocks=4, size=300):
    rng = np.random.default_rng(seed)
    return {
        f"{tower}.{block}.{matrix}": rng.lognormal(rng.normal(0, 1), 0.7, rng.integers(100, size))
        for tower in ("vision", "language")
        for block in range(blocks)
        for matrix in range(2)
    }


def by_block(elements):
    pooled = {}
    for name, values in elements.items():
        pooled.setdefault(name.rpartition(".")[0], []).append(values)
    return {name: np.concatenate(values) for name, values in pooled.items()}


def kept_by_block(plan):
    return plan.groupby("block", sort=False)["keep"].sum().to_dict()


def brute_threshold(groups, total, floors):
    """The threshold on real numbers, found by trying every element in turn."""
    for t in np.sort(np.concatenate(list(groups.values())))[::-1]:
        kept = {name: max(floors[name], int((v >= t).sum())) for name, v in groups.items()}
        if sum(kept.values()) >= total:
            return t
    raise AssertionError


@pytest.mark.parametrize("method", ["global", "lamp"])
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_of_the_sorted_elements_to_within_a_bucket(method, seed):
    elements = drawn(seed)
    groups = by_block(elements)
    total = round(0.5 * sum(len(values) for values in groups.values()))
    share = 0.4 if method == "global" else 0.0  # lamp has no guard
    floors = {name: int(np.ceil(share * len(values))) for name, values in groups.items()}
    t = brute_threshold(groups, total, floors)
    plan = allocation.allocate(
        table(elements), sparsity="0.5", max_sparsity="0.6", method=method, granularity="block"
    )
    kept = kept_by_block(plan)
    assert sum(kept.values()) == total
    for name, values in groups.items():
        least = max(floors[name], int((values >= t * (1 + RESOLUTION)).sum()))
        most = max(floors[name], int((values >= t * (1 - RESOLUTION)).sum()))
        assert least <= kept[name] <= most
    at_floor = [name for name in kept if kept[name] == floors[name]]
    assert at_floor if method == "global" else not at_floor  # the guard decides somewhere


def test_groups_share_the_bucket_of_the_threshold_by_their_elements_in_it():
    same = table({"t.a.m": [1.0] * 30, "t.b.m": [1.0] * 90, "t.c.m": [9.0] * 20})
    plan = allocation.allocate(same, sparsity="0.5", method="lamp")
    # 20 elements lie above; of the 120 in the bucket 50 stay: 12.5 and 37.5, by position.
    assert plan["keep"].tolist() == [13, 37, 20]
    two = table({"t.a.m": [2.0] * 100, "t.b.m": [1.0] * 100})
    plan = allocation.allocate(two, sparsity="0.5", max_sparsity="0.6", method="global")
    assert plan["keep"].tolist() == [60, 40]
    plan = allocation.allocate(two, sparsity="0.5", method="lamp")
    assert plan["keep"].tolist() == [100, 0]


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 1001])
def test_medians_of_a_pool_are_numpys_to_within_a_bucket(size):
    rng = np.random.default_rng(size)
    parts = [rng.lognormal(0, 2, size) for _ in range(3)]
    frame = table({f"t.a.{i}": values for i, values in enumerate(parts)})
    (median,) = allocation.pooled(frame, np.zeros(3, dtype=int)).medians()
    assert median == pytest.approx(np.median(np.concatenate(parts)), rel=RESOLUTION)


def test_the_median_of_mostly_zeros_is_zero():
    frame = table({"t.a.m": [0.0] * 5 + [3.0] * 4})
    assert allocation.pooled(frame, np.zeros(1, dtype=int)).medians().tolist() == [0.0]


def test_dlp_by_its_published_formula():
    rng = np.random.default_rng(0)
    elements = {f"t.{i}.m": rng.lognormal(i / 2, 0.3, 4000) for i in range(5)}
    medians = np.array([np.median(values) for values in elements.values()])
    importance = 1 - medians / medians.sum()
    scaled = (importance - importance.min()) / (importance.max() - importance.min()) * 0.15 * 2
    shares = scaled - scaled.mean() + (1 - 0.6)
    plan = allocation.allocate(table(elements), sparsity="0.6", method="dlp")
    # Medians are known to 1/128, and so is their spread.
    assert np.abs(plan["keep"] / 4000 - shares).max() < 0.3 * 2 * RESOLUTION
    exact = allocation.median_weighted(medians, [4000] * 5, "0.6")
    assert np.abs(np.array(exact) - 4000 * shares).max() <= 1


def test_alphapruning_by_its_published_formula():
    alphas = np.array([2.0, 4.0, 3.0, 2.5])  # of matrices; a block's is their plain mean
    sizes = np.array([1000, 3000, 2000, 4000])
    frame = pd.DataFrame(
        {
            "tower": "t",
            "block": ["a", "a", "b", "c"],
            "name": list("wxyz"),
            "n_weights": sizes,
            "score": alphas,
        }
    )
    # Blocks of 4000, 2000 and 4000 with the exponents 3, 3 and 2.5: largest, largest, smallest.
    weight = np.array([1.2, 1.2, 0.8])
    scale = 0.5 * 10_000 / (weight * [4000, 2000, 4000]).sum()
    plan = allocation.allocate(frame, sparsity="0.5", method="alphapruning")
    kept = np.array(list(kept_by_block(plan).values()))
    assert np.abs(kept - (1 - scale * weight) * [4000, 2000, 4000]).max() <= 1
    assert kept.sum() == 5000


def test_er_keeps_in_proportion_to_the_sides_of_a_matrix():
    shapes = np.array([[40, 10], [30, 60], [80, 80], [2, 5]])
    sizes, fans = shapes.prod(1), shapes.sum(1)
    total = round(0.8 * sizes.sum())
    low, high = 0.0, 1e6
    for _ in range(200):  # bisection, another way to the same real solution
        middle = (low + high) / 2
        short = np.minimum(sizes, middle * fans).sum() < total
        low, high = (middle, high) if short else (low, middle)
    frame = pd.DataFrame({"n_out": shapes[:, 0], "n_in": shapes[:, 1], "n_weights": sizes})
    frame = frame.assign(tower="t", block=range(4), name=list("abcd"))
    plan = allocation.allocate(frame, sparsity="0.2", method="er")
    assert np.abs(plan["keep"] - np.minimum(sizes, high * fans)).max() <= 1
    assert (plan["keep"] == sizes).sum() == 3  # full, so that the largest takes the rest
    sparse = allocation.allocate(frame, sparsity="0.9", method="er")
    # Nothing but the smallest is full: what is kept is one constant times n_out + n_in.
    assert sparse["keep"][3] == 10
    constant = (sparse["keep"] / fans)[:3].to_numpy()
    assert constant == pytest.approx((sparse["keep"].sum() - 10) / fans[:3].sum(), rel=0.02)


@pytest.mark.parametrize("method", allocation.METHODS)
def test_each_tower_meets_its_own_budget_as_if_it_were_alone(method):
    frame = table(drawn(1), n_out=20, n_in=10)
    parts = {"vision": "0.4", "language": "0.6"}
    options = {"method": method, "granularity": "block"}
    plan = allocation.allocate(frame, sparsity=parts, **options)
    assert plan["name"].tolist() == frame["name"].tolist()
    assert "buckets" not in plan
    assert "counts" not in plan
    for tower, p in parts.items():
        own = plan[plan["tower"] == tower]
        assert own["keep"].sum() == allocation.budget(own["n_weights"], p)
        alone = allocation.allocate(frame[frame["tower"] == tower], sparsity=p, **options)
        assert own["keep"].tolist() == alone["keep"].tolist()


def encoder_decoder(seed):
    """A tower with two lists of blocks beside one with one."""
    frame = table(drawn(seed, blocks=6), n_out=20, n_in=10)
    lists = {"vision": ["v.layers"], "language": ["l.encoder.block", "l.decoder.block"]}
    blocks = [
        f"{lists[tower][int(name[-1]) % len(lists[tower])]}.{int(name[-1]) // len(lists[tower])}"
        for tower, name in zip(frame["tower"], frame["block"], strict=True)
    ]
    return frame.assign(block=blocks)


@pytest.mark.parametrize("method", allocation.METHODS)
def test_each_stack_meets_the_budget_as_if_it_were_alone(method):
    frame = encoder_decoder(1)
    plan = allocation.allocate(frame, sparsity="0.6", method=method, budget="stack")
    for stack in ("v.layers", "l.encoder.block", "l.decoder.block"):
        own = frame["block"].str.startswith(stack)
        alone = allocation.allocate(frame[own], sparsity="0.6", method=method)
        assert plan[own]["keep"].tolist() == alone["keep"].tolist()
        assert plan[own]["keep"].sum() == allocation.budget(frame[own]["n_weights"], "0.6")
    towers = allocation.allocate(frame, sparsity="0.6", method=method, budget="tower")
    each = allocation.allocate(frame, sparsity={"vision": "0.6", "language": "0.6"}, method=method)
    assert towers.equals(each)


@pytest.mark.parametrize("inside", allocation.METHODS)
def test_an_allocation_inside_keeps_what_the_first_plan_gives_each_stack(inside):
    frame = encoder_decoder(2)
    between = {"method": "ecoflap", "score": "global", "max_sparsity": "+0.05"}
    scores = {"global": frame, "own": encoder_decoder(3).assign(n_weights=frame["n_weights"])}
    scores["own"] = scores["own"].assign(buckets=frame["buckets"], counts=frame["counts"])
    settings = {**between, "inside": {"method": inside, "score": "own"}}
    plan = allocation.plan_from(scores, settings, "0.6")
    first = allocation.allocate(frame, sparsity="0.6", max_sparsity="0.65")
    stacks = frame["block"].map(allocation.stack_of)
    kept, wanted = (each.groupby(stacks)["keep"].sum() for each in (plan, first))
    assert kept.tolist() == wanted.tolist()
    assert len(set((wanted / frame.groupby(stacks)["n_weights"].sum()).round(6))) == 3
    for stack, p in allocation.shares(first).items():
        own = stacks == stack
        alone = allocation.allocate(scores["own"][own], sparsity=p, method=inside)
        assert plan[own]["keep"].tolist() == alone["keep"].tolist()


def test_strengths_by_the_published_formulas():
    ratios, sizes = np.array([0.01, 0.05, 0.02, 0.03]), np.array([1000, 1000, 1000, 1000])
    frame = table({f"t.{i}.m": [1.0] * 1000 for i in range(4)}).assign(score=1000 * ratios)
    scaled = (ratios - ratios.min()) / (ratios.max() - ratios.min())
    plan = allocation.allocate(frame, sparsity="0.6", method="owl", strength=0.2)
    share = 0.4 + 0.4 * (scaled - scaled.mean())
    assert np.abs(plan["keep"] - 1000 * share).max() <= 1
    frame = frame.assign(score=ratios)
    plan = allocation.allocate(frame, sparsity="0.6", method="alphapruning", strength=0.3)
    weight = 0.7 + 0.6 * scaled
    assert np.abs(plan["keep"] - sizes * (1 - 0.6 * weight / weight.mean())).max() <= 1
    for method, strength in (("owl", 0), ("owl", "0.1"), ("ecoflap", 0.1), ("dlp", 1)):
        with pytest.raises(AllocationError, match=f"{method} with the strength {strength!r}"):
            allocation.allocate(frame, sparsity="0.6", method=method, strength=strength)


def test_p_max_as_a_margin():
    frame = table(drawn(3))
    plan = allocation.allocate(frame, sparsity="0.5", max_sparsity="0.7")
    assert allocation.allocate(frame, sparsity="0.5", max_sparsity="+0.2").equals(plan)


def test_er_and_lamp_are_per_matrix_by_their_authors():
    frame = table(drawn(4), n_out=20, n_in=10)
    for method in allocation.METHODS:
        plan = allocation.allocate(frame, sparsity="0.5", method=method)
        natural = "matrix" if method in ("er", "lamp") else "block"
        same = allocation.allocate(frame, sparsity="0.5", method=method, granularity=natural)
        assert plan.equals(same)


@pytest.mark.parametrize(
    ("block", "stack"),
    [
        ("language_model.encoder.block.11", "language_model.encoder.block"),
        ("visual.stages.2.blocks.3", "visual.stages"),  # stages run one after the other
        ("model.layers.0", "model.layers"),
        ("trunk", "trunk"),
    ],
)
def test_a_stack_is_the_list_that_a_block_stands_in(block, stack):
    assert allocation.stack_of(block) == stack


def test_p_max_of_each_tower():
    frame = table(drawn(2))
    p_max = {"vision": "0.5", "language": "0.9"}
    plan = allocation.allocate(frame, sparsity={"vision": 0.5, "language": 0.5}, max_sparsity=p_max)
    vision = plan["tower"] == "vision"
    assert np.allclose(plan.loc[vision, "group_sparsity"], 0.5, atol=0.01)
    assert plan.loc[~vision, "group_sparsity"].max() > 0.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": {"vision": "0.5"}}, "sparsity for vision. Allowed: vision, language or"),
        ({"sparsity": {"a": "0.5", "vision": "0.5", "language": "0.5"}}, "Name every tower"),
        ({"sparsity": "0.5", "budget": "block"}, "unknown budget 'block'"),
        ({"sparsity": "0.5", "max_sparsity": {"vision": "0.6", "language": "0.6"}}, "Give both"),
        (
            {"sparsity": {"vision": "0.5", "language": "0.7"}, "max_sparsity": "0.6"},
            r"tower language: sparsity 0\.7 is above max_sparsity",
        ),
        ({"sparsity": {"vision": "0.5", "language": "1"}}, "tower language: sparsity '1'"),
        ({"sparsity": "0.95", "method": "dlp"}, r"DLP would keep -0\.\d+ of \w+/\w+\.\d"),
        ({"sparsity": "0.05", "method": "dlp"}, r"DLP would keep 1\.\d+ of \w+/\w+\.\d"),
        ({"sparsity": "0.95", "method": "alphapruning"}, r"AlphaPruning would keep -0\.\d+ of \w+"),
        ({"sparsity": "0.5", "method": "er"}, "no column 'n_out' in the scores"),
    ],
)
def test_budgets_that_cannot_be_met_name_the_tower_or_group(options, said):
    with pytest.raises(AllocationError, match=said):
        allocation.allocate(table(drawn(3)), **options)


@pytest.mark.parametrize("method", [m for m, entry in allocation.METHODS.items() if entry.scored])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_scores_without_a_meaning_name_the_matrix(method, value):
    frame = table(drawn(4))
    frame.loc[3, "score"] = value
    with pytest.raises(AllocationError, match="the score of vision.1.1 is"):
        allocation.allocate(frame, sparsity="0.5", method=method)


@pytest.mark.parametrize("method", [m for m, entry in allocation.METHODS.items() if entry.scored])
def test_nothing_but_zeros_is_an_error_that_names_where(method):
    frame = table({name: np.zeros(50) for name in ("t.a.m", "t.b.m")})
    with pytest.raises(AllocationError, match=r"are zero, from t(\.a\.m|/t\.a) to t(\.b\.m|/t\.b)"):
        allocation.allocate(frame, sparsity="0.5", method=method)


HISTOGRAM_METHODS = [m for m, entry in allocation.METHODS.items() if "buckets" in entry.columns]


@pytest.mark.parametrize("method", HISTOGRAM_METHODS)
@pytest.mark.parametrize("column", ["score", "buckets", "counts"])
def test_a_missing_column_is_named_with_the_estimator(method, column):
    said = f"no column '{column}'.*{allocation.METHODS[method].estimators[0]}"
    with pytest.raises(AllocationError, match=said):
        allocation.allocate(table(drawn(5)).drop(columns=column), sparsity="0.5", method=method)


@pytest.mark.parametrize(
    ("buckets", "counts"),
    [
        ([5, 4], [60, 40]),
        ([4, 5], [60, 41]),
        ([4, 0x7F80], [60, 40]),
        ([-1, 5], [60, 40]),
        ([4, 5], [100]),
        ([4, 5], [101, -1]),
        ([4, 5.5], [60, 40]),
        ([], []),
        (None, None),
    ],
)
def test_a_histogram_that_is_none_names_its_matrix(buckets, counts):
    frame = table({"t.a.m": np.ones(100), "t.b.m": np.ones(100)})
    frame["buckets"], frame["counts"] = [[4], buckets], [[100], counts]
    with pytest.raises(AllocationError, match=r"the histogram of t\.b\.m is not one of its 100"):
        allocation.allocate(frame, sparsity="0.5", method="global")


def test_no_matrix_is_an_error():
    for method in allocation.METHODS:
        with pytest.raises(AllocationError, match="no matrix"):
            allocation.allocate(table(drawn(6)).iloc[:0], sparsity="0.5", method=method)


@pytest.mark.parametrize("method", HISTOGRAM_METHODS)
def test_histograms_survive_the_file(method, tmp_path, monkeypatch):
    frame, head = table(drawn(7)), artifacts.header("scores", rule="test", code="c0de", config={})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        artifacts.write_table("results/scores", frame, head)
    one, two = (tmp_path / name / "results/scores" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    read, _ = artifacts.read_table(one, "scores")
    plans = [allocation.allocate(f, sparsity="0.5", method=method) for f in (frame, read)]
    assert plans[0].equals(plans[1])
    assert [cell.tolist() for cell in read["buckets"]] == frame["buckets"].tolist()
