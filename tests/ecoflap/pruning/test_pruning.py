"""The block walk against plain forwards with hooks."""

import math
from types import SimpleNamespace

import pytest
import torch

import ecoflap
from ecoflap import artifacts
from ecoflap.criteria import prune_matrix
from ecoflap.engine import replay
from ecoflap.engine.walk import Walk
from ecoflap.errors import ArtifactError, ModelError, PruningError
from ecoflap.finetuning import masks
from ecoflap.pruning import changes, layerwise
from ecoflap.scores import matrix_table
from helpers import tiny


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


def plan_for(model, sparsity="0.5"):
    return ecoflap.allocate(matrix_table(model), sparsity=sparsity, method="uniform")


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_sparsity_0_changes_no_byte(family, criterion):
    model = family()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    report = ecoflap.prune(model, tiny.batches(model), plan_for(model, "0.0"), criterion=criterion)
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)
    assert (report["achieved_sparsity"] == 0).all()
    assert not (report["block_error"] > 0).any()


def test_statistics_of_every_block_equal_those_of_a_plain_forward(family, monkeypatch):
    model = family()
    batches = tiny.batches(model, 3)
    expected = tiny.hooked_inputs(model, batches)

    def spy(module, weight, statistics, selection, ridge):
        return weight.clone(), torch.zeros_like(weight, dtype=torch.bool)

    names = {}
    original = layerwise._prune_one

    def remember(model, matrix, module, statistics, *rest):
        names[matrix.name] = statistics
        return original(model, matrix, module, statistics, *rest)

    monkeypatch.setattr(layerwise, "_prune_one", remember)
    monkeypatch.setattr(layerwise.criteria, "apply", spy)
    ecoflap.prune(model, batches, plan_for(model), criterion="sparsegpt")
    assert set(names) == set(expected)
    for name, inputs in expected.items():
        assert torch.allclose(names[name], inputs.T @ inputs, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "magnitude"])
def test_the_report_counts_real_tokens_for_each_input_feature(family, criterion):
    model = family()
    batches = tiny.batches(model, 3)
    inputs = tiny.hooked_inputs(model, batches)
    report = ecoflap.prune(model, batches, plan_for(model), criterion=criterion)
    counted = dict(zip(report["name"], report["tokens_per_feature"], strict=True))
    if criterion == "magnitude":
        assert report["tokens_per_feature"].isna().all()
        assert not model.tokens_per_feature
    else:
        expected = {name: len(rows) / rows.shape[1] for name, rows in inputs.items()}
        assert counted == model.tokens_per_feature == expected


@pytest.mark.parametrize(
    ("criterion", "tokens", "told"),
    [("sparsegpt", 7, True), ("sparsegpt", 28, False), ("wanda", 7, False)],
)
def test_fewer_tokens_than_features_are_told_where_weights_are_fitted(
    criterion, tokens, told, caplog
):
    model = tiny.llama_model()  # 16 features everywhere, 24 before the last matrix of each MLP
    batches = tiny.batches(model, tokens // 7, size=1)
    ecoflap.prune(model, batches, plan_for(model), criterion=criterion)
    text = "21 of 21 matrices have fewer calibration tokens than input features (least: 0.29"
    assert (text in caplog.text) == told


def test_a_ridge_reaches_the_criterion_and_the_card(family):
    weights = {}
    for ridge in (None, "0.1", "0.5"):
        model = family()
        batches = tiny.batches(model)
        ecoflap.prune(model, batches, plan_for(model), criterion="admm", ridge=ridge)
        weights[ridge] = [matrix.module.weight.detach() for matrix in model.matrices()]
        assert model.history[0][1].get("ridge") == (ridge and float(ridge))
    pairs = {r: zip(weights[None], weights[r], strict=True) for r in ("0.1", "0.5")}
    assert all(torch.equal(a, b) for a, b in pairs["0.1"])
    assert not all(torch.equal(a, b) for a, b in pairs["0.5"])
    with pytest.raises(PruningError, match="a ridge with wanda"):
        ecoflap.prune(model, batches, plan_for(model), criterion="wanda", ridge="0.1")


def test_an_update_that_overflows_names_its_matrix(monkeypatch):
    model = tiny.llama_model()
    model.module.half()
    first = next(iter(model.matrices()))

    def overflowing(weight, statistics, selection):
        new = torch.full_like(weight, 1e5, dtype=torch.float32).to(weight.dtype)
        return new, torch.zeros_like(weight, dtype=torch.bool)

    monkeypatch.setattr("ecoflap.criteria.sparsegpt.prune", overflowing)
    with pytest.raises(PruningError, match=f"{first.name}: weights that sparsegpt updated are not"):
        ecoflap.prune(model, tiny.batches(model), plan_for(model), criterion="sparsegpt")


@pytest.mark.parametrize("beside", [False, True])
def test_changes_that_the_number_format_cannot_hold_are_refused(beside, tmp_path):
    """As of a model that was fine-tuned in float32 and is evaluated in float16."""
    model = tiny.llama_model()
    name, further = next(iter(model.matrices())).name, None
    if beside:
        name = "lm_head.weight"
        further = {name: torch.full_like(model.module.get_parameter(name), 1e5)}
    else:
        with torch.no_grad():
            next(iter(model.matrices())).module.weight[0, 0] = 1e5
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="d")
    path = tmp_path / "changes.safetensors"
    changes.save_changes(model, path, head, updates_weights=True, further=further)
    changes.apply_changes(tiny.llama_model(), path, "d")
    short = tiny.llama_model()
    short.module.half()
    with pytest.raises(ModelError, match=f"{name} is not finite in float16"):
        changes.apply_changes(short, path, "d")


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "admm"])
def test_each_block_is_pruned_on_the_outputs_of_pruned_blocks(family, criterion):
    model, reference = family(), family()
    batches = tiny.batches(model, 2)
    plan = plan_for(model)
    ecoflap.prune(model, batches, plan, criterion=criterion)
    # The literal algorithm: full forwards with hooks before each block, in the order they run.
    with torch.no_grad():
        _, trace = replay.run(reference.block_modules(), lambda: reference.loss(batches[0]))
    for index in trace.order():
        inputs = tiny.hooked_inputs(reference, batches)
        for matrix in reference.blocks[index].matrices:
            pruned, _ = prune_matrix(
                matrix.module.weight.detach(),
                inputs[matrix.name],
                sparsity=0.5,
                criterion=criterion,
                group=reference.group_of(matrix.tower),
            )
            with torch.no_grad():
                matrix.module.weight.copy_(pruned)
    for ours, theirs in zip(model.matrices(), reference.matrices(), strict=True):
        assert torch.equal(ours.module.weight == 0, theirs.module.weight == 0), ours.name
        assert torch.allclose(ours.module.weight, theirs.module.weight, atol=1e-4), ours.name


def test_masks_do_not_depend_on_the_batch_size(family):
    masks = []
    for size in (2, 6):
        model = family()
        whole = tiny.batches(model, 1, size=6)[0]
        parts = [
            {name: tensor[start : start + size] for name, tensor in whole.items()}
            for start in range(0, 6, size)
        ]
        ecoflap.prune(model, parts, plan_for(model), criterion="wanda")
        masks.append(model.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_padding_does_not_count():
    model = tiny.blip2_model()
    batch = tiny.batches(model, 1)[0]
    longer = dict(batch)
    longer["input_ids"] = torch.cat([batch["input_ids"], torch.full((3, 5), 7)], dim=1)
    longer["attention_mask"] = torch.cat(
        [batch["attention_mask"], torch.zeros(3, 5, dtype=torch.long)], dim=1
    )
    longer["labels"] = torch.cat([batch["labels"], torch.full((3, 4), -100)], dim=1)
    masks = []
    for data in (batch, longer):
        model = tiny.blip2_model()
        ecoflap.prune(model, [data], plan_for(model), criterion="wanda")
        masks.append(model.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_never_pruned_parts_stay(family):
    model = family()
    prunable = {f"{matrix.name}.weight" for matrix in model.matrices()}
    assert not any("qformer" in name or "lm_head" in name for name in prunable)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    ecoflap.prune(model, tiny.batches(model), plan_for(model), criterion="sparsegpt")
    changed = {n for n, p in model.module.named_parameters() if not torch.equal(p, before[n])}
    assert changed == prunable


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "admm"])
def test_changes_are_stored_and_come_back(family, criterion, tmp_path):
    model, fresh = family(), family()
    ecoflap.prune(model, tiny.batches(model), plan_for(model), criterion=criterion)
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="abc")
    path = tmp_path / "changes.safetensors"
    changes.save_changes(model, path, head, updates_weights=criterion != "wanda")
    changes.apply_changes(fresh, path, "abc")
    for ours, theirs in zip(model.matrices(), fresh.matrices(), strict=True):
        assert torch.equal(ours.module.weight, theirs.module.weight)
    with pytest.raises(ArtifactError, match="another checkpoint"):
        changes.apply_changes(family(), path, "def")


def test_changes_of_another_model_are_refused(tmp_path):
    model = tiny.llama_model()
    ecoflap.prune(model, [], plan_for(model), criterion="magnitude")
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="abc")
    changes.save_changes(model, tmp_path / "c", head, updates_weights=False)
    with pytest.raises(ArtifactError, match="nothing that fits"):
        changes.apply_changes(tiny.clip_model(), tmp_path / "c", "abc")


def test_plans_that_do_not_fit_are_refused():
    model = tiny.llama_model()
    plan = plan_for(model)
    for wrong in (
        plan.iloc[1:],
        plan.assign(name="x." + plan["name"]),
        plan_for(tiny.clip_model()),
    ):
        with pytest.raises(PruningError, match="does not fit"):
            ecoflap.prune(model, tiny.batches(model), wrong)
    with pytest.raises(ModelError, match="no calibration batch"):
        ecoflap.prune(model, [], plan)


def test_nan_in_weights_names_the_matrix():
    model = tiny.llama_model()
    matrix = list(model.matrices())[3]
    matrix.module.weight.data[0, 0] = float("nan")
    with pytest.raises(PruningError, match=matrix.name):
        ecoflap.prune(model, [], plan_for(model), criterion="magnitude")


def test_mixed_n_of_m_from_scores_to_masks(family):
    model = family()
    batches = tiny.batches(model)
    scores = ecoflap.score(model, batches, estimator="magnitude")
    scores["score"] *= range(1, len(scores) + 1)  # a model this small has blocks all alike
    plan = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.75", of=8)
    report = ecoflap.prune(model, batches, plan, criterion="wanda", pattern="n:8")
    assert report["achieved_sparsity"].to_numpy() == pytest.approx(report["sparsity"].to_numpy())
    assert report["sparsity"].nunique() > 1
    for matrix, sparsity in zip(model.matrices(), plan["sparsity"], strict=True):
        groups = matrix.module.weight.detach().reshape(-1, 8)
        assert ((groups == 0).sum(-1) == round(8 * sparsity)).all()


def test_a_plan_that_a_pattern_cannot_follow_is_told_before_anything_changes(family):
    model = family()
    before = [matrix.module.weight.detach().clone() for matrix in model.matrices()]
    with pytest.raises(PruningError, match=r"sparsity 0\.\d+ with the pattern 2:4"):
        ecoflap.prune(model, tiny.batches(model), plan_for(model, "0.4"), pattern="2:4")
    for matrix, weight in zip(model.matrices(), before, strict=True):
        assert torch.equal(matrix.module.weight, weight)


@pytest.mark.parametrize("estimator", ["gradnorm", "zeroth", "first", "fisher", "local-wanda"])
def test_batches_that_leave_a_tower_out_are_refused_by_every_score(estimator):
    model = without_pictures()
    told = "the model never runs vision|pictures .* change nothing"
    with pytest.raises((PruningError, ModelError), match=told):
        ecoflap.score(model, tiny.batches(model, 1), estimator=estimator)


def test_batches_that_leave_a_tower_out_change_nothing():
    model = without_pictures()
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    with pytest.raises(PruningError, match=r"the model never runs vision.*3 in all"):
        ecoflap.prune(model, tiny.batches(model, 1), plan_for(model), criterion="wanda")
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not model.masks


def without_pictures():
    """BLIP-2 whose loss is that of its language model alone."""
    model = tiny.blip2_model()
    words = ("input_ids", "attention_mask", "labels")
    model.loss = lambda batch: model.module.language_model(**{k: batch[k] for k in words}).loss
    return model


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ([3.0, 4.0], [3.0, 0.0], 0.8),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 0.0], [1.0, 0.0], math.inf),
    ],
)
def test_the_change_of_an_output_is_relative_to_what_it_was(before, after, change):
    """A change of nothing into something is no change of 0."""
    traces = [SimpleNamespace(outputs=[torch.tensor(part)]) for part in (before, after)]
    walk = SimpleNamespace(
        _span=lambda number, block: (0, 0),
        before=traces[0],
        traces=traces[1:],
        places=SimpleNamespace(get=lambda tensor: tensor),
    )
    assert Walk._change(walk, SimpleNamespace(index=0)) == pytest.approx(change)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_what_a_first_pass_removed_stays_removed_in_a_second(family, criterion):
    model = family()
    batches = tiny.batches(model, 2)
    ecoflap.prune(model, batches, plan_for(model, "0.6"), criterion="magnitude")
    first = {m.name: (m.module.weight == 0).clone() for m in model.matrices()}
    report = ecoflap.prune(model, batches, plan_for(model, "0.3"), criterion=criterion)
    gone = masks.removed(model)
    achieved = report.set_index("name")["achieved_sparsity"]
    for matrix in model.matrices():
        zero = matrix.module.weight == 0
        assert zero[first[matrix.name]].all()
        assert torch.equal(gone[matrix.name], zero)
        assert achieved[matrix.name] == zero.sum().item() / matrix.n_weights


@pytest.mark.parametrize("plan", [None, [1], "plan"])
def test_what_is_no_plan_is_told(plan):
    with pytest.raises(PruningError, match="a plan without the column 'name'"):
        ecoflap.prune(tiny.llama_model(), [], plan, criterion="magnitude")


@pytest.mark.parametrize("pattern", [None, 24, (2, 4)])
def test_what_is_no_pattern_is_told(pattern):
    model = tiny.llama_model()
    with pytest.raises(PruningError, match="Correct the pattern"):
        ecoflap.prune(model, [], plan_for(model), criterion="magnitude", pattern=pattern)
