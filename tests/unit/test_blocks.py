"""The block mechanism against plain forwards, for every family of models."""

import pytest
import tiny
import torch
from ecoflap import blocks


@pytest.fixture(params=tiny.MODELS)
def model(request):
    return tiny.MODELS[request.param]()


def record(model, batch):
    with torch.no_grad():
        loss, trace = blocks.run(model.block_modules(), lambda: model.loss(batch))
    return loss, trace


def test_recording_changes_nothing_and_sees_every_block(model):
    (batch,) = tiny.batches(model, 1)
    loss, trace = record(model, batch)
    assert torch.equal(loss, model.loss(batch).detach())
    assert sorted(trace.order()) == list(range(len(model.blocks)))


def test_replayed_losses_equal_full_ones_to_the_bit(model):
    (batch,) = tiny.batches(model, 1)
    _, trace = record(model, batch)
    for matrix in model.matrices():
        original = matrix.module.weight.detach().clone()
        with torch.no_grad():
            matrix.module.weight.add_(0.1)
            start = trace.first_call(matrix.block)
            replayed, _ = blocks.run(
                model.block_modules(), lambda: model.loss(batch), trace=trace, start=start
            )
            assert torch.equal(replayed, model.loss(batch))
            matrix.module.weight.copy_(original)


def test_replayed_blocks_do_not_run(model):
    (batch,) = tiny.batches(model, 1)
    _, trace = record(model, batch)
    ran = []
    handles = [
        block.matrices[0].module.register_forward_hook(
            lambda *_, index=block.index: ran.append(index)
        )
        for block in model.blocks
        if block.matrices
    ]
    last = trace.order()[-1]
    with torch.no_grad():
        blocks.run(
            model.block_modules(),
            lambda: model.loss(batch),
            trace=trace,
            start=trace.first_call(last),
        )
    for handle in handles:
        handle.remove()
    assert set(ran) == {last}


def test_stop_ends_after_the_block(model):
    (batch,) = tiny.batches(model, 1)
    _, trace = record(model, batch)
    with torch.no_grad():
        result, partial = blocks.run(
            model.block_modules(), lambda: model.loss(batch), stop=trace.last_call(1)
        )
    assert result is None
    assert partial.calls == trace.calls[: trace.last_call(1) + 1]


def test_t5_blocks_get_the_position_bias_of_block_0():
    model = tiny.blip2_model()
    (batch,) = tiny.batches(model, 1)
    _, trace = record(model, batch)
    first = next(b for b in model.blocks if b.name.endswith("encoder.block.0"))
    second = next(b for b in model.blocks if b.name.endswith("encoder.block.1"))
    bias = trace.outputs[trace.first_call(first.index)][1]
    seen = []
    handle = second.module.layer[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_bias"]), with_kwargs=True
    )
    with torch.no_grad():
        blocks.run(
            model.block_modules(),
            lambda: model.loss(batch),
            trace=trace,
            start=trace.first_call(second.index),
        )
    handle.remove()
    assert bias.abs().sum() > 0
    assert torch.equal(seen[0], bias)


def test_forwards_are_restored_after_an_error(model):
    (batch,) = tiny.batches(model, 1)

    def fail():
        model.loss(batch)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        blocks.run(model.block_modules(), fail)
    assert not any("forward" in vars(module) for module in model.block_modules())


def test_checkpointed_gradients_equal_plain_ones(model):
    (batch,) = tiny.batches(model, 1)
    weights = [matrix.module.weight for matrix in model.matrices()]
    plain = torch.autograd.grad(model.loss(batch), weights)
    with blocks.checkpointed(model.block_modules()):
        streamed = torch.autograd.grad(model.loss(batch), weights)
    assert all(torch.equal(a, b) for a, b in zip(plain, streamed, strict=True))
