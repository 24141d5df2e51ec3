"""The block mechanism against plain forwards, for every family of models."""

import pytest
import torch

from ecoflap.engine import replay
from ecoflap.errors import ModelError
from ecoflap.models import inputs
from helpers import tiny


@pytest.fixture(params=tiny.MODELS)
def model(request):
    return tiny.MODELS[request.param]()


def record(model, batch):
    with torch.no_grad():
        loss, trace = replay.run(model.block_modules(), lambda: model.loss(batch))
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
            replayed, _ = replay.run(
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
        replay.run(
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
        result, partial = replay.run(
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
        replay.run(
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
        replay.run(model.block_modules(), fail)
    assert not any("forward" in vars(module) for module in model.block_modules())


def test_checkpointed_gradients_equal_plain_ones(model):
    (batch,) = tiny.batches(model, 1)
    weights = [matrix.module.weight for matrix in model.matrices()]
    plain = torch.autograd.grad(model.loss(batch), weights)
    with replay.checkpointed(model.block_modules()):
        streamed = torch.autograd.grad(model.loss(batch), weights)
    assert all(torch.equal(a, b) for a, b in zip(plain, streamed, strict=True))


def test_replays_of_what_is_needed_equal_full_forwards(model):
    """Outputs that the survey calls unread are freed; the loss must not notice."""
    (batch,) = tiny.batches(model, 1)
    calls, needed = replay.survey(model.block_modules(), lambda: model.loss(batch))
    _, full = record(model, batch)
    assert calls.calls == full.calls
    assert len(needed) < len(full.calls)
    for position in range(1, len(full.calls)):
        with torch.no_grad():
            loss, _ = replay.run(
                model.block_modules(),
                lambda: model.loss(batch),
                trace=full.cut(position, needed),
                start=position,
            )
        assert torch.equal(loss, model.loss(batch))


@pytest.mark.parametrize("padded", [None, 0, 3])
def test_a_few_samples_are_surveyed_like_the_whole_batch(model, padded):
    (batch,) = tiny.batches(model, 1, size=5)
    for name in ("attention_mask", "labels"):
        if padded is not None and name in batch:
            clean = batch[name].clamp(min=1)
            clean[padded, 3:] = -100 if name == "labels" else 0
            batch[name] = clean
    few = inputs.few_samples(batch)
    assert all(len(tensor) == (3 if padded == 3 else 2) for tensor in few.values())
    whole = replay.survey(model.block_modules(), lambda: model.loss(batch))
    assert replay.survey(model.block_modules(), lambda: model.loss(few)) == whole


def test_samples_of_a_batch_whose_tensors_are_not_cut_alike_stay_together():
    ids = torch.zeros(3, 4, dtype=torch.long)
    for name, other in {
        "pixel_values": torch.zeros(12, 8),
        "position_ids": torch.zeros(3, 3, 4, dtype=torch.long),
        "weight": torch.tensor(1.0),
    }.items():
        batch = {"input_ids": ids, name: other}
        assert inputs.few_samples(batch) is batch
    assert len(inputs.few_samples({"input_ids": ids[:1]})["input_ids"]) == 1


class Summing(torch.nn.Module):
    """Reads the first block's output again at the end, but only if asked to."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(4))

    def forward(self, x, again):
        """Runs the blocks."""
        outputs = [x]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return (outputs[-1] + outputs[1] if again else outputs[-1]).sum()


def test_an_output_that_the_model_reads_later_is_needed():
    model, x = Summing(), torch.ones(2, 3)
    assert replay.survey(model.blocks, lambda: model(x, True))[1] == {0, 3}
    assert replay.survey(model.blocks, lambda: model(x, False))[1] == {3}


def test_reading_what_was_freed_is_an_error_not_a_wrong_number():
    model, x = Summing(), torch.ones(2, 3)
    _, needed = replay.survey(model.blocks, lambda: model(x, False))
    with torch.no_grad():
        _, trace = replay.run(model.blocks, lambda: model(x, True))
        trace = trace.cut(3, needed)
        with pytest.raises(ModelError, match="did not read on the first batch"):
            replay.run(model.blocks, lambda: model(x, True), trace=trace, start=3)
