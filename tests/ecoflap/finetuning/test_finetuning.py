"""Fine-tuning against torch's AdamW by hand, explicit products and closed forms."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ArtifactError, DataError, ModelError, PruningError
from ecoflap.finetuning import data, lora, masks, training
from ecoflap.finetuning.distillation import divergence
from helpers import tiny
from helpers.configs import ROOT
from helpers.tuning import (
    BOTH,
    CAPTIONS,
    FULL,
    drawn,  # noqa: F401, every test here draws from it
    items,
    pruned,
    state,
)


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
    curve = training.finetune(model, FULL)
    assert curve["step"].tolist() == [1, 2, 3, 4]
    assert curve["learning_rate"].tolist() == pytest.approx(rates)
    assert curve["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    for name, weight in state(model).items():
        torch.testing.assert_close(weight, weights[name].detach(), rtol=1e-4, atol=1e-6)


@BOTH
def test_what_was_pruned_is_a_zero_to_the_bit_and_all_else_moves(settings):
    model = pruned()
    before, gone = state(model), masks.removed(model)
    training.finetune(model, settings)
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
        training.finetune(model, FULL)


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
    rates = [training.learning_rate(step, 104, peak=2.0, warmup=4) for step in range(104)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[54] == pytest.approx(1.0)
    assert rates[29] == pytest.approx(1 + math.sqrt(0.5))
    assert rates[103] == pytest.approx(2 * math.sin(math.pi / 200) ** 2)


def test_pieces_of_a_batch_add_up_to_the_batch():
    whole, parts = pruned(), pruned()
    training.finetune(whole, FULL)
    training.finetune(parts, FULL, batch_size=1)
    for name, weight in state(whole).items():
        torch.testing.assert_close(state(parts)[name], weight, rtol=1e-3, atol=1e-5)
    batch = {"x": torch.arange(10)}
    sizes = [len(part["x"]) for part in data.pieces(batch, 4)]
    assert sizes == [4, 3, 3]


def test_the_held_out_loss_is_that_of_the_model_in_the_end():
    model = pruned()
    curve = training.finetune(model, FULL)
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
    curve = training.finetune(pruned(), settings, teacher=tiny.llama_model())
    assert curve["loss"].iloc[-1] < 0.5 * curve["loss"].iloc[0]
    same = training.finetune(tiny.llama_model(), settings, teacher=tiny.llama_model())
    assert same["loss"].iloc[0] == pytest.approx(0, abs=1e-6)


def test_distillation_needs_logits(monkeypatch):
    model = tiny.clip_model()
    (batch,) = tiny.batches(model, 1)
    monkeypatch.setattr(data, "encode", lambda *_: batch)
    settings = {**FULL, "data": [CAPTIONS], "distillation": 0.5}
    with pytest.raises(ModelError, match="returns no logits"):
        training.finetune(model, settings, teacher=tiny.clip_model())
    assert not model.module._forward_hooks


@pytest.mark.parametrize(("last", "told"), [(2.5, True), (2.0, True), (1.5, False)])
def test_a_run_that_got_no_better_says_so(last, told, caplog, monkeypatch):
    losses = iter([2.0, 9.0, 9.0, last])
    monkeypatch.setattr(training._Run, "_held_out_loss", lambda _: next(losses))
    training.finetune(pruned(), FULL)
    assert ("held-out loss is no lower at the end" in caplog.text) == told


def test_weights_must_be_float32():
    model = pruned()
    model.module.half()
    with pytest.raises(ModelError, match="float32 weights"):
        training.finetune(model, FULL)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model = pruned()
    kinds = set()
    model.module.lm_head.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    training.finetune(model, {**FULL, "precision": "bfloat16"})
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


SHARED = """
import os, sys
import torch
torch.set_num_threads(1)
import test_finetuning as here
from ecoflap import artifacts
here.data.draw = lambda *_: (here.items(6), here.items(2, seed=1))
model = here.pruned()
curve = here.training.finetune(model, here.FULL, batch_size=1)
if os.environ["RANK"] == "0":
    head = artifacts.header("test", rule="r", code="c", config={}, losses=curve["loss"].tolist())
    artifacts.write_tensors(sys.argv[1], here.state(model), head)
"""


def test_two_processes_make_what_one_makes(tmp_path):
    (tmp_path / "script.py").write_text(SHARED)
    paths = [str(ROOT / "tests"), str(Path(__file__).parent), str(ROOT / "workflow/scripts")]
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
    curve = training.finetune(model, {**FULL})
    assert head["losses"] == pytest.approx(curve["loss"].tolist(), rel=1e-5)
    for name, weight in state(model).items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=1e-5)
