"""Fine-tuning against torch's AdamW by hand, explicit products and closed forms."""

import copy
import math
import os
import subprocess
import sys

import pytest
import tiny
import torch
import yaml
from configs import ROOT, SCHEMAS
from ecoflap import artifacts, baselines, finetuning
from ecoflap import config as configuration
from ecoflap.errors import ArtifactError, ConfigError, DataError, ModelError, PruningError
from ecoflap.finetuning import checkpoints, data, lora, masks, start
from ecoflap.finetuning.distillation import divergence
from ecoflap.finetuning.recipe import DEFAULTS, checked

TOKENS = 7
TEXTS = {"name": "wikitext-2", "split": "train", "view": "text"}
FULL = {
    "method": "full",
    "data": [
        {
            "dataset": TEXTS,
            "format": "text-windows",
            "window": TOKENS,
        }
    ],
    "epochs": 2,
    "learning_rate": 0.01,
    "warmup": 1,
    "weight_decay": 0.05,
    "batch_size": 3,
    "precision": "float32",
}
CAPTIONS = {
    "dataset": {"name": "scenes", "split": "train", "view": "captions"},
    "format": "image-caption",
}
LORA = {**FULL, "method": "sparselora", "rank": 2}
BOTH = pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "sparselora"])


def items(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, tiny.VOCABULARY, (count, TOKENS), generator=generator)
    return [({"id": str(i), "tokens": t}, FULL["data"][0]) for i, t in enumerate(drawn)]


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Six examples to learn from and two held-out ones, instead of a data set."""
    monkeypatch.setattr(data, "draw", lambda *_: (items(6), items(2, seed=1)))


def pruned():
    model = tiny.llama_model()
    baselines.prune_global_magnitude(model, "0.5")
    return model


def die_at(monkeypatch, number):
    """Ends runs before a step, as a kill does."""
    step = finetuning._Run._step

    def dies(self, now, batch):
        if now == number:
            raise KeyboardInterrupt
        return step(self, now, batch)

    monkeypatch.setattr(finetuning._Run, "_step", dies)


def state(model):
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


def test_full_training_is_adamw_by_hand_with_the_mask_put_on_after_each_step():
    model = pruned()
    expected = copy.deepcopy(model.module).train()
    weights = dict(expected.named_parameters())
    gone = {f"{name}.weight": mask for name, mask in masks.removed(model).items()}
    adam = torch.optim.AdamW(weights.values(), weight_decay=0.05)
    steps = data.Steps(model, items(6), batch_size=3, epochs=2, seed=0)
    # Four steps: a line up in one, then half a cosine over three.
    rates = [0.005, 0.01, 0.01 * (1 + math.cos(math.pi / 3)) / 2, 0.01 * 0.25]
    losses = []
    for step, rate in enumerate(rates):
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss = expected(**steps[step]).loss
        loss.backward()
        adam.step()
        losses.append(loss.item())
        with torch.no_grad():
            for name, mask in gone.items():
                weights[name][mask] = 0
    curve = finetuning.finetune(model, FULL)
    assert curve["step"].tolist() == [1, 2, 3, 4]
    assert curve["learning_rate"].tolist() == pytest.approx(rates)
    assert curve["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    for name, weight in state(model).items():
        torch.testing.assert_close(weight, weights[name].detach(), rtol=1e-4, atol=1e-6)


@BOTH
def test_what_was_pruned_is_a_zero_to_the_bit_and_all_else_moves(settings):
    model = pruned()
    before, gone = state(model), masks.removed(model)
    finetuning.finetune(model, settings)
    after = state(model)
    assert set(after) == set(before)
    for name, mask in gone.items():
        bits = after[f"{name}.weight"].view(torch.int32)
        assert (bits[mask] == 0).all()
        assert (bits[~mask] != 0).all()
        assert (after[f"{name}.weight"] != before[f"{name}.weight"])[~mask].any()
    others = [name for name in before if name.removesuffix(".weight") not in gone]
    changed = {name for name in others if not torch.equal(before[name], after[name])}
    assert changed == (set(others) if settings is FULL else set())


def test_masks_come_from_zeros_where_a_criterion_stores_none():
    model = pruned()
    stored = masks.removed(model)
    model.masks.clear()
    found = masks.removed(model)
    assert all(torch.equal(found[name], stored[name]) for name in stored)


@pytest.mark.parametrize("value", [1e-30, -0.0])
def test_a_weight_that_came_back_is_told_a_negative_zero_too(value):
    model = pruned()
    gone = masks.removed(model)
    matrix = next(model.matrices())
    row, column = gone[matrix.name].nonzero()[0]
    with torch.no_grad():
        matrix.module.weight[row, column] = value
    with pytest.raises(PruningError, match=matrix.name):
        masks.check(model, gone)


def test_a_mask_that_does_not_fit_is_told():
    model = pruned()
    name = next(model.matrices()).name
    model.masks[name] = model.masks[name][:-1]
    with pytest.raises(ArtifactError, match="does not fit"):
        finetuning.finetune(model, FULL)


def test_a_merged_update_is_the_explicit_product_under_the_mask():
    model = pruned()
    before, gone = state(model), masks.removed(model)
    trained = lora.add(model, gone, rank=2, seed=0)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_()
    lora.merge(model)
    for name, mask in gone.items():
        up, down = trained[f"{name}.up"], trained[f"{name}.down"]
        product = torch.einsum("or,ri->oi", up, down) * ~mask
        expected = before[f"{name}.weight"] + product
        torch.testing.assert_close(state(model)[f"{name}.weight"], expected)
        assert torch.linalg.matrix_rank(up @ down) == 2
    masks.check(model, gone)


def test_the_learning_rate_is_a_line_and_half_a_cosine():
    rates = [finetuning.learning_rate(step, 104, peak=2.0, warmup=4) for step in range(104)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[54] == pytest.approx(1.0)
    assert rates[29] == pytest.approx(1 + math.sqrt(0.5))
    assert rates[103] == pytest.approx(2 * math.sin(math.pi / 200) ** 2)


@BOTH
def test_a_killed_run_goes_on_to_the_same_bytes(settings, tmp_path, monkeypatch):
    def run(model, path):
        for layer in model.module.model.layers:
            layer.self_attn.attention_dropout = 0.3  # so that there is randomness to get right
        return finetuning.finetune(model, settings, checkpoint=path)

    whole = pruned()
    expected = run(whole, None)
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        die_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(pruned(), path)
    model = pruned()
    curve = run(model, path)
    assert curve.equals(expected)
    for name, weight in state(model).items():
        assert torch.equal(weight, state(whole)[name]), name


def test_a_checkpoint_of_another_run_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    head = {"inputs": {"pruned": "abc"}}
    finetuning.finetune(pruned(), FULL, checkpoint=path, head=head)
    content = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"another settings.epochs \(then 2, now 3\).*delete"):
        finetuning.finetune(pruned(), {**FULL, "epochs": 3}, checkpoint=path, head=head)
    with pytest.raises(ArtifactError, match="another seed"):
        finetuning.finetune(pruned(), FULL, seed=1, checkpoint=path, head=head)
    several = r"settings.epochs \(then 2, now 3\), settings.warmup \(then 1, now 0\)"
    settings = {**FULL, "epochs": 3, "warmup": 0}
    with pytest.raises(ArtifactError, match=several):
        finetuning.finetune(pruned(), settings, checkpoint=path, head=head)
    other = {"inputs": {"pruned": "xyz"}}
    several = {**FULL, "data": [{**FULL["data"][0], "held_out": 3}]}
    with pytest.raises(ArtifactError, match=r"another settings.data.0.held_out \(then None, now 3"):
        finetuning.finetune(pruned(), several, checkpoint=path, head=head)
    with pytest.raises(ArtifactError, match=r"another inputs.pruned \(then 'abc', now 'xyz'\)"):
        finetuning.finetune(pruned(), FULL, checkpoint=path, head=other)
    assert path.read_bytes() == content
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(ArtifactError, match="not those that were written"):
        finetuning.finetune(pruned(), FULL, checkpoint=path, head=head)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="it is empty"):
        finetuning.finetune(pruned(), FULL, checkpoint=path, head=head)


def test_a_difference_that_the_header_holds_twice_is_told_once(tmp_path):
    path, other = tmp_path / "checkpoint.safetensors", {**FULL, "epochs": 3}
    finetuning.finetune(pruned(), FULL, checkpoint=path, head={"config": {"finetuning": FULL}})
    with pytest.raises(ArtifactError) as told:
        finetuning.finetune(
            pruned(), other, checkpoint=path, head={"config": {"finetuning": other}}
        )
    assert str(told.value).count("epochs") == 1
    assert "another config.finetuning.epochs (then 2, now 3)" in str(told.value)


def test_a_killed_run_costs_what_an_undisturbed_one_does(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    step = finetuning._Run._step

    def slow(self, number, batch):
        clock[0] += 100
        return step(self, number, batch)

    monkeypatch.setattr(finetuning._Run, "_step", slow)
    path = tmp_path / "checkpoint.safetensors"

    def run():
        model = pruned()
        with model.cost() as cost:
            finetuning.finetune(model, FULL, checkpoint=path, cost=cost)
        return cost

    with monkeypatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run()
    clock[0] += 5000  # nobody computes
    cost = run()
    assert cost.as_dict()["seconds"] == 400  # four steps
    assert cost.as_dict()["peak_memory_mb"] >= cost.earlier["peak_memory_mb"]


@pytest.mark.parametrize("what", ["loss", "weight", "held-out loss"])
def test_a_run_that_is_not_finite_leaves_nothing_to_go_on_from(what, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    step, held_out, stops = finetuning._Run._step, finetuning._Run._held_out_loss, []

    def fails(self, number, batch):
        loss, rate = step(self, number, batch)
        if number == 3 and what == "weight":
            with torch.no_grad():
                next(iter(self.trained.values())).view(-1)[0] = math.inf
        return (math.nan if number == 3 and what == "loss" else loss), rate

    def overflows(self):
        stops.append(1)
        return math.inf if what == "held-out loss" and len(stops) == 4 else held_out(self)

    monkeypatch.setattr(finetuning._Run, "_step", fails)
    monkeypatch.setattr(finetuning._Run, "_held_out_loss", overflows)
    if what == "weight":
        monkeypatch.setattr(data, "draw", lambda *_: (items(6), []))
    model = pruned()
    before = state(model)
    said = {"loss": "loss is nan", "weight": "a weight is", "held-out loss": "held-out loss is inf"}
    with pytest.raises(PruningError, match=f"step 4 .*{said[what]}.*Lower the learning rate"):
        finetuning.finetune(model, FULL, checkpoint=path)
    assert not path.exists()
    assert all(torch.equal(weight, before[name]) for name, weight in state(model).items())


@pytest.mark.parametrize(("epochs", "stops"), [(1, 3), (3, 9), (5, 8), (7, 7), (10, 10)])
def test_a_run_stops_ten_times_at_most_and_at_its_end(epochs, stops):
    curve = finetuning.finetune(pruned(), {**FULL, "epochs": epochs, "batch_size": 2})
    measured = curve["held_out_loss"].notna()
    assert measured.sum() == stops
    assert measured.iloc[-1]


def test_a_rank_that_no_update_can_have_is_told():
    least = min(min(matrix.module.weight.shape) for matrix in pruned().matrices())
    finetuning.finetune(pruned(), {**LORA, "rank": least})
    with pytest.raises(ConfigError, match=rf"rank {least + 1} for .* x .*Allowed: 1 to {least}\."):
        finetuning.finetune(pruned(), {**LORA, "rank": least + 1})


def test_a_checkpoint_holds_the_optimizer(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    adam = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.sum().backward()
    adam.step()
    path, head = tmp_path / "c.safetensors", {"schema_version": artifacts.SCHEMA_VERSION}
    curve = torch.tensor([[1.0, 0.1, math.nan]], dtype=torch.float64)
    spent = {"seconds": 3.5, "peak_memory_mb": 10.0, "device": "cpu"}
    state = {"trained": {"w": weight}, "optimizer": adam}
    checkpoints.save(path, head, curve=curve, spent=spent, **state)
    other = torch.nn.Parameter(torch.zeros(2, 3))
    fresh = torch.optim.AdamW([other], lr=0.1, fused=True)
    found, cost = checkpoints.load(path, head, trained={"w": other}, optimizer=fresh)
    torch.testing.assert_close(found, curve, equal_nan=True)
    assert cost == spent
    assert torch.equal(other, weight)
    assert fresh.state[other].keys() == adam.state[weight].keys()
    for key, value in adam.state[weight].items():
        assert torch.equal(fresh.state[other][key], value)


def test_pieces_of_a_batch_add_up_to_the_batch():
    whole, parts = pruned(), pruned()
    finetuning.finetune(whole, FULL)
    finetuning.finetune(parts, FULL, batch_size=1)
    for name, weight in state(whole).items():
        torch.testing.assert_close(state(parts)[name], weight, rtol=1e-3, atol=1e-5)
    batch = {"x": torch.arange(10)}
    sizes = [len(part["x"]) for part in data.pieces(batch, 4)]
    assert sizes == [4, 3, 3]


def test_the_held_out_loss_is_that_of_the_model_in_the_end():
    model = pruned()
    curve = finetuning.finetune(model, FULL)
    with torch.no_grad():
        loss = model.loss(data.encode(model, items(2, seed=1))).item()
    assert curve["held_out_loss"].iloc[-1] == pytest.approx(loss)


def test_an_epoch_sees_each_example_once_and_processes_share_a_batch():
    model = tiny.llama_model()
    whole = data.Steps(model, items(7), batch_size=3, epochs=2, seed=4)
    parts = [
        data.Steps(model, items(7), batch_size=3, epochs=2, seed=4, share=(i, 2)) for i in (0, 1)
    ]
    assert len(whole) == 4
    for step in range(4):
        rows = torch.cat([part[step]["input_ids"] for part in parts]).tolist()
        assert sorted(rows) == sorted(whole[step]["input_ids"].tolist())
    epochs = [
        torch.cat([whole[s]["input_ids"] for s in pair]).tolist() for pair in ((0, 1), (2, 3))
    ]
    assert all(len({tuple(row) for row in epoch}) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1]
    with pytest.raises(DataError, match="a sample for each"):
        data.Steps(model, items(7), batch_size=2, epochs=1, seed=0, share=(0, 3))


@pytest.mark.parametrize("shift", [False, True])
def test_the_divergence_is_the_sum_over_labelled_tokens(shift):
    student, teacher = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, -100, 3], [-100, 4, -100, -100]])
    terms = []
    for row in range(2):
        for token in range(4):
            if labels[row, token] != -100 and (token or not shift):
                q, p = (x[row, token - shift].softmax(-1) for x in (student, teacher))
                terms.append(sum(p[i] * math.log(p[i] / q[i]) for i in range(5)))
    found = divergence(student, teacher, {"labels": labels}, shift=shift)
    assert found.item() == pytest.approx(float(sum(terms) / len(terms)), rel=1e-5)


def test_distillation_alone_brings_the_model_nearer_to_its_teacher():
    settings = {**FULL, "distillation": 1.0, "epochs": 10}
    curve = finetuning.finetune(pruned(), settings, teacher=tiny.llama_model())
    assert curve["loss"].iloc[-1] < 0.5 * curve["loss"].iloc[0]
    same = finetuning.finetune(tiny.llama_model(), settings, teacher=tiny.llama_model())
    assert same["loss"].iloc[0] == pytest.approx(0, abs=1e-6)


def test_distillation_needs_logits(monkeypatch):
    model = tiny.clip_model()
    (batch,) = tiny.batches(model, 1)
    monkeypatch.setattr(data, "encode", lambda *_: batch)
    settings = {**FULL, "data": [CAPTIONS], "distillation": 0.5}
    with pytest.raises(ModelError, match="returns no logits"):
        finetuning.finetune(model, settings, teacher=tiny.clip_model())
    assert not model.module._forward_hooks


@pytest.mark.parametrize(
    ("settings", "options", "error", "said"),
    [
        ({"method": "lora"}, {}, ConfigError, "method 'lora'. Allowed: full, sparselora"),
        ({"distillation": 0.5}, {}, ConfigError, "without a teacher.*Pass the dense model"),
        ({}, {"teacher": "the dense model"}, ConfigError, "without distill.*pass no teacher"),
        ({}, {"batch_size": 0}, ConfigError, "batch_size=0. Allowed: a whole number from 1"),
        ({"lr": 3, "rank": 2}, {}, ConfigError, r"(?s)2 problem\(s\).*key 'lr'.*a rank with"),
        ({"data": {}}, {}, ConfigError, "no list of mappings"),
        ({"data": []}, {}, ConfigError, "empty data"),
        ({"data": [{"format": "text-windows"}]}, {}, ConfigError, "data.0: dataset None"),
        ({"data": [CAPTIONS]}, {}, ConfigError, "'image-caption'. Allowed: text-windows"),
        (
            {"data": [{**CAPTIONS, "format": "text-windows", "window": 9}]},
            {},
            ConfigError,
            "data.0: text-windows with the view 'captions'. Allowed: text",
        ),
        ({"data": [{**FULL["data"][0], "held_out": -1}]}, {}, ConfigError, "held_out -1"),
        ({"data": [{**FULL["data"][0], "hold_out": 1}]}, {}, ConfigError, "mean 'held_out'"),
        ({"data": [{**FULL["data"][0], "prompt": ""}]}, {}, ConfigError, "a prompt with text-win"),
        (
            {"data": [{k: v for k, v in FULL["data"][0].items() if k != "window"}]},
            {},
            ConfigError,
            "no window with text-windows",
        ),
        (
            {"data": [{**FULL["data"][0], "dataset": {**TEXTS, "limt": 3}}]},
            {},
            ConfigError,
            "Did you mean 'limit'",
        ),
        (
            {"data": [{**FULL["data"][0], "dataset": {**TEXTS, "limit": "40"}}]},
            {},
            ConfigError,
            "limit '40'. Allowed: a whole number from 1",
        ),
        ({}, {"seed": -1}, ConfigError, "seed=-1"),
        ({}, {"seed": None}, ConfigError, "seed=None"),
        ({"warmup": 4}, {}, ConfigError, "a warmup of 4 steps in a run of 4. Allowed: at most 3"),
        ({"batch_size": 7}, {}, ConfigError, "samples to fine-tune on: 6, in batches of 7"),
        ({"learning_rate": 1e30}, {}, PruningError, "finite losses"),
    ],
)
def test_settings_that_fit_no_run_are_told(settings, options, error, said):
    with pytest.raises(error, match=said):
        finetuning.finetune(pruned(), {**FULL, **settings}, **options)


def test_all_keys_that_are_missing_are_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)5 problem\(s\).*no method.*no data.*no batch_size"):
        finetuning.finetune(pruned(), {})


@pytest.mark.parametrize(
    "key",
    [*FULL, "rank", "distillation", "data.samples", "data.held_out", "data.window", "data.limit"],
)
def test_settings_are_checked_as_the_configurations_schema_does(key):
    schema = yaml.safe_load((SCHEMAS / "finetuning.schema.yaml").read_text())[
        "additionalProperties"
    ]
    validator = configuration.Validator(schema)
    model = pruned()
    verdicts = set()
    for value in (
        -1,
        0,
        0.5,
        1,
        1.0,
        1.5,
        4,
        True,
        None,
        "4",
        "full",
        "bfloat16",
        "float16",
        [],
        {},
    ):
        settings = {**(LORA if key == "rank" else FULL), key: value}
        if key == "data.limit":
            part = {**FULL["data"][0], "dataset": {**TEXTS, "limit": value}}
            settings = {**FULL, "data": [part]}
        elif key.startswith("data."):
            part = {**FULL["data"][0], key.removeprefix("data."): value}
            settings = {**FULL, "data": [part]}
        try:
            checked(model, settings, batch_size=4, seed=0)
            fits = True
        except ConfigError:
            fits = False
        assert fits == validator.is_valid(settings), value
        verdicts.add(fits)
    assert verdicts == ({False} if key == "data" else {True, False})


def test_defaults_are_those_of_the_configurations_schema():
    schema = yaml.safe_load((SCHEMAS / "finetuning.schema.yaml").read_text())
    described = schema["additionalProperties"]["properties"]
    defaults = {key: part["default"] for key, part in described.items() if "default" in part}
    assert dict(DEFAULTS) == defaults
    plain = {key: value for key, value in FULL.items() if key not in defaults}
    curve = finetuning.finetune(pruned(), plain)
    assert curve.equals(finetuning.finetune(pruned(), {**plain, **defaults}))


@pytest.mark.parametrize("key", ["batch_size", "held_out"])
def test_a_contrastive_model_never_learns_from_one_sample(key):
    alone = {**FULL, "data": [CAPTIONS], "batch_size": 1}
    if key == "held_out":
        alone = {**FULL, "data": [{**CAPTIONS, "held_out": 1}]}
    with pytest.raises(ConfigError, match=f"{key} 1 in forwards of 32 has one of a single sample"):
        finetuning.finetune(tiny.clip_model(), alone)


def pruned_to(sparsity):
    model = tiny.llama_model()
    baselines.prune_global_magnitude(model, sparsity)
    return model


@BOTH
def test_a_checkpoint_of_another_pruned_model_is_refused(settings, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        die_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            finetuning.finetune(pruned_to("0.5"), settings, checkpoint=path)
    with pytest.raises(ArtifactError, match="another weights_before"):
        finetuning.finetune(pruned_to("0.7"), settings, checkpoint=path)
    other = pruned_to("0.5")
    with torch.no_grad():
        next(other.matrices()).module.weight.mul_(2)  # the same mask
    with pytest.raises(ArtifactError, match="another weights_before"):
        finetuning.finetune(other, settings, checkpoint=path)
    assert path.exists()


@BOTH
def test_a_checkpoint_is_not_gone_on_from_by_the_model_that_it_trained(settings, tmp_path):
    model, path = pruned(), tmp_path / "checkpoint.safetensors"
    finetuning.finetune(model, settings, checkpoint=path)
    with pytest.raises(ArtifactError, match="another weights_before"):
        finetuning.finetune(model, settings, checkpoint=path)
    with pytest.raises(ArtifactError, match=r"another batch_size \(then 32, now 1\)"):
        finetuning.finetune(pruned(), settings, checkpoint=path, batch_size=1)


def test_a_checkpoint_is_of_one_teacher(tmp_path):
    path, settings = tmp_path / "checkpoint.safetensors", {**FULL, "distillation": 0.5}
    finetuning.finetune(pruned(), settings, checkpoint=path, teacher=tiny.llama_model())
    with pytest.raises(ArtifactError, match="another weights_of_the_teacher"):
        finetuning.finetune(pruned(), settings, checkpoint=path, teacher=pruned())
    model = pruned()
    for odd in (model, "a name"):
        with pytest.raises(ConfigError, match="a teacher that is no other model"):
            finetuning.finetune(model, settings, teacher=odd)


def test_a_file_that_is_no_checkpoint_is_not_to_be_deleted(tmp_path):
    model, path = pruned(), tmp_path / "model.safetensors"
    model.save(tmp_path)
    with pytest.raises(ArtifactError, match="no checkpoint to go on from.*Name another file"):
        finetuning.finetune(model, FULL, checkpoint=path)


def test_updates_that_come_and_go_leave_the_digest_of_a_model_with_biases():
    model = tiny.clip_model()
    gone = masks.removed(model)
    before = start.digest(model, gone)
    lora.add(model, gone, rank=2, seed=0)
    lora.drop(model)
    assert start.digest(model, gone) == before
    matrix = next(model.matrices())
    gone[matrix.name][0, 0] ^= True
    assert start.digest(model, gone) != before
    gone[matrix.name][0, 0] ^= True
    with torch.no_grad():
        matrix.module.weight[0, 0] += 1
    assert start.digest(model, gone) != before


def test_what_json_does_not_know_is_no_hindrance(tmp_path):
    import numpy as np

    path = tmp_path / "checkpoint.safetensors"
    placed = {**FULL["data"][0], "dataset": {**TEXTS, "folder": tmp_path}}
    settings = {**FULL, "epochs": np.int64(2), "data": [placed]}
    curve = finetuning.finetune(pruned(), settings, seed=np.int64(3), checkpoint=path)
    assert finetuning.finetune(pruned(), FULL, seed=3).equals(curve)
    assert finetuning.finetune(pruned(), settings, seed=np.int64(3), checkpoint=path).equals(curve)


def test_the_history_keeps_what_the_settings_were():
    settings = copy.deepcopy(FULL)
    model = pruned()
    finetuning.finetune(model, settings)
    settings["data"][0]["dataset"]["limit"] = 7
    assert "limit" not in model.history[-1][1]["data"][0]["dataset"]


@BOTH
@pytest.mark.parametrize("step", [0, 2])
def test_the_same_call_goes_on_after_an_interrupt(settings, step, tmp_path, monkeypatch):
    whole, model, path = pruned(), pruned(), tmp_path / "checkpoint.safetensors"
    before = state(model)
    finetuning.finetune(whole, settings)
    with monkeypatch.context() as patch:
        die_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            finetuning.finetune(model, settings, checkpoint=path)
    assert set(state(model)) == set(before)  # no update hangs on it
    assert all(torch.equal(weight, before[name]) for name, weight in state(model).items())
    assert [kind for kind, _ in model.history] == ["pruning"]
    finetuning.finetune(model, settings, checkpoint=path)
    for name, weight in state(whole).items():
        assert torch.equal(state(model)[name], weight), name


@pytest.mark.parametrize(("last", "told"), [(2.5, True), (2.0, True), (1.5, False)])
def test_a_run_that_got_no_better_says_so(last, told, caplog, monkeypatch):
    losses = iter([2.0, 9.0, 9.0, last])
    monkeypatch.setattr(finetuning._Run, "_held_out_loss", lambda _: next(losses))
    finetuning.finetune(pruned(), FULL)
    assert ("held-out loss is no lower at the end" in caplog.text) == told


def test_weights_must_be_float32():
    model = pruned()
    model.module.half()
    with pytest.raises(ModelError, match="float32 weights"):
        finetuning.finetune(model, FULL)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model = pruned()
    kinds = set()
    model.module.lm_head.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    finetuning.finetune(model, {**FULL, "precision": "bfloat16"})
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


SHARED = """
import os, sys
import torch
torch.set_num_threads(1)
import test_finetuning as here
from ecoflap import artifacts, finetuning
here.data.draw = lambda *_: (here.items(6), here.items(2, seed=1))
model = here.pruned()
curve = finetuning.finetune(model, here.FULL, batch_size=1)
if os.environ["RANK"] == "0":
    head = artifacts.header("test", rule="r", code="c", config={}, losses=curve["loss"].tolist())
    artifacts.write_tensors(sys.argv[1], here.state(model), head)
"""


def test_two_processes_make_what_one_makes(tmp_path):
    (tmp_path / "script.py").write_text(SHARED)
    paths = [str(ROOT / "tests"), str(ROOT / "tests/unit"), str(ROOT / "workflow/scripts")]
    result = tmp_path / "weights.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc_per_node", "2", str(tmp_path / "script.py"), str(result)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shared, head = artifacts.read_tensors(result, "test")
    model = pruned()
    curve = finetuning.finetune(model, {**FULL})
    assert head["losses"] == pytest.approx(curve["loss"].tolist(), rel=1e-5)
    for name, weight in state(model).items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=1e-5)
