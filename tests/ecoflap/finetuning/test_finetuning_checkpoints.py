"""Where a run of fine-tuning goes on after a kill, and what an error leaves behind."""

import math

import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ArtifactError, ConfigError, PruningError
from ecoflap.finetuning import data, lora, masks, resume, snapshot, training
from ecoflap.pruning import whole_model
from helpers import tiny
from helpers.tuning import (
    BOTH,
    FULL,
    TEXTS,
    die_at,
    drawn,  # noqa: F401, every test here draws from it
    items,
    pruned,
    state,
)


@BOTH
def test_a_killed_run_goes_on_to_the_same_bytes(settings, tmp_path, monkeypatch):
    def run(model, path):
        for layer in model.module.model.layers:
            layer.self_attn.attention_dropout = 0.3  # so that there is randomness to get right
        return training.finetune(model, settings, checkpoint=path)

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
    training.finetune(pruned(), FULL, checkpoint=path, head=head)
    content = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"another settings.epochs \(then 2, now 3\).*delete"):
        training.finetune(pruned(), {**FULL, "epochs": 3}, checkpoint=path, head=head)
    with pytest.raises(ArtifactError, match="another seed"):
        training.finetune(pruned(), FULL, seed=1, checkpoint=path, head=head)
    several = r"settings.epochs \(then 2, now 3\), settings.warmup \(then 1, now 0\)"
    settings = {**FULL, "epochs": 3, "warmup": 0}
    with pytest.raises(ArtifactError, match=several):
        training.finetune(pruned(), settings, checkpoint=path, head=head)
    other = {"inputs": {"pruned": "xyz"}}
    several = {**FULL, "data": [{**FULL["data"][0], "held_out": 3}]}
    with pytest.raises(ArtifactError, match=r"another settings.data.0.held_out \(then None, now 3"):
        training.finetune(pruned(), several, checkpoint=path, head=head)
    with pytest.raises(ArtifactError, match=r"another inputs.pruned \(then 'abc', now 'xyz'\)"):
        training.finetune(pruned(), FULL, checkpoint=path, head=other)
    assert path.read_bytes() == content
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(ArtifactError, match="not those that were written"):
        training.finetune(pruned(), FULL, checkpoint=path, head=head)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="it is empty"):
        training.finetune(pruned(), FULL, checkpoint=path, head=head)


def test_a_difference_that_the_header_holds_twice_is_told_once(tmp_path):
    path, other = tmp_path / "checkpoint.safetensors", {**FULL, "epochs": 3}
    training.finetune(pruned(), FULL, checkpoint=path, head={"config": {"finetuning": FULL}})
    with pytest.raises(ArtifactError) as told:
        training.finetune(pruned(), other, checkpoint=path, head={"config": {"finetuning": other}})
    assert str(told.value).count("epochs") == 1
    assert "another config.finetuning.epochs (then 2, now 3)" in str(told.value)


def test_a_killed_run_costs_what_an_undisturbed_one_does(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    step = training._Run._step

    def slow(self, number, batch):
        clock[0] += 100
        return step(self, number, batch)

    monkeypatch.setattr(training._Run, "_step", slow)
    path = tmp_path / "checkpoint.safetensors"

    def run():
        model = pruned()
        with model.cost() as cost:
            training.finetune(model, FULL, checkpoint=path, cost=cost)
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
    step, held_out, stops = training._Run._step, training._Run._held_out_loss, []

    def fails(self, number, batch):
        loss, rate = step(self, number, batch)
        if number == 3 and what == "weight":
            with torch.no_grad():
                next(iter(self.trained.values())).view(-1)[0] = math.inf
        return (math.nan if number == 3 and what == "loss" else loss), rate

    def overflows(self):
        stops.append(1)
        return math.inf if what == "held-out loss" and len(stops) == 4 else held_out(self)

    monkeypatch.setattr(training._Run, "_step", fails)
    monkeypatch.setattr(training._Run, "_held_out_loss", overflows)
    if what == "weight":
        monkeypatch.setattr(data, "draw", lambda *_: (items(6), []))
    model = pruned()
    before = state(model)
    said = {"loss": "loss is nan", "weight": "a weight is", "held-out loss": "held-out loss is inf"}
    with pytest.raises(PruningError, match=f"step 4 .*{said[what]}.*Lower the learning rate"):
        training.finetune(model, FULL, checkpoint=path)
    assert not path.exists()
    assert all(torch.equal(weight, before[name]) for name, weight in state(model).items())


@pytest.mark.parametrize(("epochs", "stops"), [(1, 3), (3, 9), (5, 8), (7, 7), (10, 10)])
def test_a_run_stops_ten_times_at_most_and_at_its_end(epochs, stops):
    curve = training.finetune(pruned(), {**FULL, "epochs": epochs, "batch_size": 2})
    measured = curve["held_out_loss"].notna()
    assert measured.sum() == stops
    assert measured.iloc[-1]


def test_a_checkpoint_holds_the_optimizer(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    adam = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.sum().backward()
    adam.step()
    path, head = tmp_path / "c.safetensors", {"schema_version": artifacts.SCHEMA_VERSION}
    curve = torch.tensor([[1.0, 0.1, math.nan]], dtype=torch.float64)
    spent = {"seconds": 3.5, "peak_memory_mb": 10.0, "device": "cpu"}
    state = {"trained": {"w": weight}, "optimizer": adam}
    resume.save(path, head, curve=curve, spent=spent, **state)
    other = torch.nn.Parameter(torch.zeros(2, 3))
    fresh = torch.optim.AdamW([other], lr=0.1, fused=True)
    found, cost = resume.load(path, head, trained={"w": other}, optimizer=fresh)
    torch.testing.assert_close(found, curve, equal_nan=True)
    assert cost == spent
    assert torch.equal(other, weight)
    assert fresh.state[other].keys() == adam.state[weight].keys()
    for key, value in adam.state[weight].items():
        assert torch.equal(fresh.state[other][key], value)


def pruned_to(sparsity):
    model = tiny.llama_model()
    whole_model.prune_global_magnitude(model, sparsity)
    return model


@BOTH
def test_a_checkpoint_of_another_pruned_model_is_refused(settings, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        die_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(pruned_to("0.5"), settings, checkpoint=path)
    with pytest.raises(ArtifactError, match="another weights_before"):
        training.finetune(pruned_to("0.7"), settings, checkpoint=path)
    other = pruned_to("0.5")
    with torch.no_grad():
        next(other.matrices()).module.weight.mul_(2)  # the same mask
    with pytest.raises(ArtifactError, match="another weights_before"):
        training.finetune(other, settings, checkpoint=path)
    assert path.exists()


@BOTH
def test_a_checkpoint_is_not_gone_on_from_by_the_model_that_it_trained(settings, tmp_path):
    model, path = pruned(), tmp_path / "checkpoint.safetensors"
    training.finetune(model, settings, checkpoint=path)
    with pytest.raises(ArtifactError, match="another weights_before"):
        training.finetune(model, settings, checkpoint=path)
    with pytest.raises(ArtifactError, match=r"another batch_size \(then 32, now 1\)"):
        training.finetune(pruned(), settings, checkpoint=path, batch_size=1)


def test_a_checkpoint_is_of_one_teacher(tmp_path):
    path, settings = tmp_path / "checkpoint.safetensors", {**FULL, "distillation": 0.5}
    training.finetune(pruned(), settings, checkpoint=path, teacher=tiny.llama_model())
    with pytest.raises(ArtifactError, match="another weights_of_the_teacher"):
        training.finetune(pruned(), settings, checkpoint=path, teacher=pruned())
    model = pruned()
    for odd in (model, "a name"):
        with pytest.raises(ConfigError, match="a teacher that is no other model"):
            training.finetune(model, settings, teacher=odd)


def test_a_file_that_is_no_checkpoint_is_not_to_be_deleted(tmp_path):
    model, path = pruned(), tmp_path / "model.safetensors"
    model.save(tmp_path)
    with pytest.raises(ArtifactError, match="no checkpoint to go on from.*Name another file"):
        training.finetune(model, FULL, checkpoint=path)


def test_updates_that_come_and_go_leave_the_digest_of_a_model_with_biases():
    model = tiny.clip_model()
    gone = masks.removed(model)
    before = snapshot.digest(model, gone)
    lora.add(model, gone, rank=2, seed=0)
    lora.drop(model)
    assert snapshot.digest(model, gone) == before
    matrix = next(model.matrices())
    gone[matrix.name][0, 0] ^= True
    assert snapshot.digest(model, gone) != before
    gone[matrix.name][0, 0] ^= True
    with torch.no_grad():
        matrix.module.weight[0, 0] += 1
    assert snapshot.digest(model, gone) != before


def test_what_json_does_not_know_is_no_hindrance(tmp_path):
    import numpy as np

    path = tmp_path / "checkpoint.safetensors"
    placed = {**FULL["data"][0], "dataset": {**TEXTS, "folder": tmp_path}}
    settings = {**FULL, "epochs": np.int64(2), "data": [placed]}
    curve = training.finetune(pruned(), settings, seed=np.int64(3), checkpoint=path)
    assert training.finetune(pruned(), FULL, seed=3).equals(curve)
    assert training.finetune(pruned(), settings, seed=np.int64(3), checkpoint=path).equals(curve)


@BOTH
@pytest.mark.parametrize("step", [0, 2])
def test_the_same_call_goes_on_after_an_interrupt(settings, step, tmp_path, monkeypatch):
    whole, model, path = pruned(), pruned(), tmp_path / "checkpoint.safetensors"
    before = state(model)
    training.finetune(whole, settings)
    with monkeypatch.context() as patch:
        die_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(model, settings, checkpoint=path)
    assert set(state(model)) == set(before)  # no update hangs on it
    assert all(torch.equal(weight, before[name]) for name, weight in state(model).items())
    assert [kind for kind, _ in model.history] == ["pruning"]
    training.finetune(model, settings, checkpoint=path)
    for name, weight in state(whole).items():
        assert torch.equal(state(model)[name], weight), name
