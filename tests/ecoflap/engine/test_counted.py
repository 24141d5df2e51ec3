"""Which tokens count, against plain forwards with hooks and a choice made by loops."""

import math
from functools import partial

import pytest
import torch

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.engine import counted
from ecoflap.engine.walk import Walk
from ecoflap.errors import PruningError
from ecoflap.models.adapters import blip2, image_text
from ecoflap.scores import matrix_table
from helpers import architectures, hooks, tiny
from helpers.noise import randomize

ADAPTERS = {
    "blip2-t5": blip2.Adapter,
    "blip2-opt": image_text.Adapter,
    "llava": image_text.Adapter,
    "idefics3": image_text.Adapter,
    "qwen3-vl": image_text.Adapter,
}
CROSS = ("EncDecAttention.k", "EncDecAttention.v")


@pytest.fixture(params=ADAPTERS)
def name(request):
    return request.param


def built(name):
    architecture = architectures.ARCHITECTURES[name]
    module = randomize(architecture.build(), 0.4)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim == 1:  # of norms
                parameter.fill_(0 if key.endswith("bias") else 1)
    return ADAPTERS[name](module, None), architecture.batches()


def reads_prompt(matrix):
    in_decoder = matrix.name.startswith("language_model.decoder.block")
    return matrix.tower == "language" and (not in_decoder or matrix.name.endswith(CROSS))


def walked(model, batches, tokens):
    walk, found = Walk(model, batches, wanda, tokens), {}
    for block in walk:
        found.update(walk.statistics(block))
        walk.advance(block)
    return found


def counted_by_hand(model, batches, block_name):
    """For each batch of a plain forward: which tokens a block's statistics are to have."""
    block = next(block for block in model.blocks if block.name == block_name)
    found = []

    def look(module, args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        made = output if isinstance(output, torch.Tensor) else output[0]
        ids, mask = batch["input_ids"], batch["attention_mask"]
        given, made = (t.reshape(*ids.shape, -1).double() for t in (given, made))
        kept = torch.zeros(ids.shape, dtype=torch.bool)
        for row in range(len(ids)):
            texts, drifts = 0, {}
            for place in range(ids.shape[1]):
                a, b = given[row, place], made[row, place]
                if ids[row, place] != architectures.IMAGE:
                    kept[row, place] = True
                    texts += int(mask[row, place])
                elif mask[row, place]:
                    drifts[place] = 1 - float(a @ b / (a.norm() * b.norm()))
            share = min(1, sum(drifts.values()) / len(drifts))
            most = sorted(drifts, key=drifts.get, reverse=True)[: round(share * texts)]
            kept[row, most] = True
        found.append(kept)

    handle = block.module.register_forward_hook(look, with_kwargs=True)
    with torch.no_grad():
        for batch in batches:
            model.loss(batch)
    handle.remove()
    return found


def padding(name, matrix, batch):
    """Which tokens are no padding, from the table of the architecture."""
    if matrix.tower == "vision":
        return None
    if name == "blip2-t5" and not reads_prompt(matrix):
        return batch["labels"] != -100
    return batch["attention_mask"].bool()


def without_images(name, matrix, batch):
    real = padding(name, matrix, batch)
    return real & (batch["input_ids"] != architectures.IMAGE) if reads_prompt(matrix) else real


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, squares in found.items():
        torch.testing.assert_close(
            squares.double(), expected[name].double(), rtol=1e-5, atol=1e-8, msg=name
        )


def test_text_leaves_the_image_tokens_of_the_language_tower_out(name):
    model, batches = built(name)
    expected = hooks.squares(model, batches, partial(without_images, name))
    assert_same(walked(model, batches, "text"), expected)
    everything = hooks.squares(model, batches, partial(padding, name))
    differ = {n for n, value in everything.items() if not torch.equal(value, expected[n])}
    assert differ == {matrix.name for matrix in model.matrices() if reads_prompt(matrix)}


def test_drift_counts_the_image_tokens_that_a_block_turns_most(name):
    model, batches = built(name)
    chosen = {
        block.name: counted_by_hand(model, batches, block.name)
        for block in model.blocks
        if block.matrices and reads_prompt(block.matrices[0])
    }
    last_of_encoder = [n for n in chosen if ".encoder." in n][-1:]
    images = [batch["input_ids"] == architectures.IMAGE for batch in batches]
    shares = [
        kept[image].double().mean().item()
        for masks in chosen.values()
        for kept, image in zip(masks, images, strict=True)
    ]
    assert any(0 < share < 1 for share in shares)
    numbers = {id(batch): number for number, batch in enumerate(batches)}

    def real(matrix, batch):
        if not reads_prompt(matrix):
            return padding(name, matrix, batch)
        block = model.blocks[matrix.block].name
        (by,) = last_of_encoder if matrix.name.endswith(CROSS) else [block]
        return padding(name, matrix, batch) & chosen[by][numbers[id(batch)]]

    assert_same(walked(model, batches, "drift"), hooks.squares(model, batches, real))


@pytest.mark.parametrize("tokens", ["text", "drift"])
def test_the_batch_that_a_sample_is_in_is_no_matter(tokens):
    model, batches = built("blip2-t5")
    singles = [
        {key: tensor[row : row + 1] for key, tensor in batch.items()}
        for batch in batches
        for row in range(len(batch["input_ids"]))
    ]
    assert_same(walked(model, batches, tokens), walked(model, singles, tokens))


def test_the_choice_by_hand():
    """Four text tokens, of which one is padding: 0.5 * 3 rounds to 2, 1.2 counts as 1."""
    image = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]]).bool()
    real = torch.ones_like(image)
    real[0, 6] = False
    real[1, 0] = False  # padding among the images is never chosen
    drift = torch.zeros(2, 7)
    drift[0, :3] = torch.tensor([0.25, 0.75, 0.5])
    drift[1, :4] = torch.tensor([2.0, 1.2, 1.2, 1.2])
    kept = counted.chosen(drift, image, real)
    assert kept.int().tolist() == [[0, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]]


def plan(model):
    return ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")


@pytest.mark.parametrize("tokens", ["text", "drift"])
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "admm"])
def test_pruning_with_some_tokens_changes_the_towers_that_have_them(tokens, criterion):
    pruned = {}
    for choice in ("all", tokens):
        model, batches = built("llava")
        report = ecoflap.prune(model, batches, plan(model), criterion=criterion, tokens=choice)
        assert math.isclose(report["achieved_sparsity"].mean(), 0.5, abs_tol=0.02)
        pruned[choice] = {m.name: (m.tower, m.module.weight.clone()) for m in model.matrices()}
    told = dict(model.history)["pruning"]
    assert told["tokens"] == tokens
    same = {"vision": [], "language": []}
    for name, (tower, weight) in pruned["all"].items():
        same[tower].append(torch.equal(weight, pruned[tokens][name][1]))
    assert all(same["vision"])
    assert not any(same["language"])


@pytest.mark.parametrize("build", [tiny.clip_model, tiny.llama_model])
@pytest.mark.parametrize("tokens", ["text", "drift"])
def test_models_without_images_among_their_tokens_are_refused(build, tokens):
    model = build()
    with pytest.raises(PruningError, match=f"tokens: {tokens} with {type(model.module).__name__}"):
        ecoflap.prune(model, tiny.batches(model), plan(model), tokens=tokens)


def test_a_text_that_points_at_its_picture_has_no_image_tokens():
    architecture = architectures.ARCHITECTURES["mllama"]
    model = image_text.Adapter(randomize(architecture.build()), None)
    with pytest.raises(PruningError, match="tokens: text with Mllama"):
        ecoflap.prune(model, architecture.batches(), plan(model), tokens="text")


def test_an_unknown_choice_is_told():
    model = tiny.blip2_model()
    with pytest.raises(PruningError, match="unknown choice of tokens 'txt'.*Did you mean 'text'"):
        ecoflap.prune(model, tiny.batches(model), plan(model), tokens="txt")
