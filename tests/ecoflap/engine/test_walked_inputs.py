"""What a layer-wise pass sees of its batches, against hooks in plain forwards."""

import pytest
import torch
import transformers

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.engine.walk import Walk
from ecoflap.errors import ModelError, PruningError
from ecoflap.models.adapters import generic
from ecoflap.scores import matrix_table
from helpers import hooks, tiny, zoo
from helpers.noise import randomize
from helpers.zoo import Case

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "patch_size": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
N, SIDE = 2, 4  # pictures, of 4 x 4 patches


def walked(model, batches) -> dict[str, torch.Tensor]:
    """The statistics of Wanda, block by block."""
    walk, found = Walk(model, batches, wanda), {}
    for block in walk:
        found.update(walk.statistics(block))
        walk.advance(block)
    return found


def assert_as_in_plain_forwards(model, batches, real):
    expected = hooks.squares(model, batches, real)
    for name, found in walked(model, batches).items():
        wanted = expected.pop(name)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-8, msg=name)
    assert not expected


def square_batch(samples: int, length: int) -> dict:
    """As many samples as tokens, or not, with padding on the right of the first."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 30, (samples, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def siglip2(attention: str) -> tuple[generic.Adapter, dict, torch.Tensor]:
    """Pictures of any shape: the first has 2 x 2 patches, filled up to 16."""
    config = transformers.Siglip2Config(
        text_config=TEXT | {"projection_size": 16}, vision_config=VISION | {"num_patches": 16}
    )
    config._attn_implementation = attention
    model = generic.Adapter(randomize(transformers.Siglip2Model(config)), None)
    generator = torch.Generator().manual_seed(0)
    real = torch.ones(N, SIDE**2, dtype=torch.bool)
    real[0, 4:] = False
    batch = {
        "input_ids": torch.randint(2, 30, (N, 6), generator=generator),
        "pixel_values": torch.randn(N, SIDE**2, 48, generator=generator),
        "pixel_attention_mask": real.long(),
        "spatial_shapes": torch.tensor([[2, 2], [4, 4]]),
    }
    return model, batch, real


def idefics3(attention: str) -> tuple[generic.Adapter, dict, torch.Tensor]:
    """The right half of the first picture is padding."""
    config = transformers.Idefics3Config(
        vision_config=VISION | {"image_size": 16},
        text_config=TEXT | {"model_type": "llama"},
        image_token_id=39,
    )
    config._attn_implementation = attention
    model = generic.Adapter(randomize(transformers.Idefics3ForConditionalGeneration(config)), None)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 30, (N, 10), generator=generator)
    ids[:, :4] = 39
    pixels = torch.randn(N, 1, 3, 16, 16, generator=generator)
    shown = torch.ones(N, 1, 16, 16, dtype=torch.bool)
    shown[0, :, :, 8:] = False
    batch = {
        "input_ids": ids,
        "pixel_values": pixels * shown[:, :, None],
        "pixel_attention_mask": shown,
        "labels": ids.masked_fill(ids == 39, -100),
    }
    real = torch.ones(N, SIDE, SIDE, dtype=torch.bool)
    real[0, :, 2:] = False
    return model, batch, real.flatten(1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("build", [siglip2, idefics3])
def test_patches_that_fill_a_picture_up_are_left_out(build, attention):
    model, batch, real = build(attention)
    assert {matrix.tower for matrix in model.matrices()} == {"vision", "language"}
    assert_as_in_plain_forwards(
        model, [batch], lambda matrix, _: real if matrix.tower == "vision" else None
    )


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_batches_of_as_many_samples_as_tokens_are_walked(samples):
    model = zoo.build(Case("LlamaForCausalLM"))
    batches = [square_batch(samples, 8), square_batch(3, 6)]
    assert_as_in_plain_forwards(model, batches, lambda _, batch: batch["attention_mask"].bool())


@pytest.mark.parametrize("samples", [2, 8])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("XLNetForSequenceClassification", {"n_layer": 2, "d_inner": 24}),
        ("FSMTForConditionalGeneration", {"src_vocab_size": 40, "tgt_vocab_size": 40}),
    ],
)
def test_models_that_compute_on_tokens_before_samples_are_refused(name, settings, samples):
    model = zoo.build(Case(name, settings))
    batch = square_batch(samples, 8)
    batch["labels"] = torch.arange(samples) % 2 if "Classification" in name else batch["input_ids"]
    unpadded = batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}
    with pytest.raises(PruningError, match=r"reads tokens \(8, \d\), the padding mask"):
        walked(model, [unpadded, batch])


def test_a_square_batch_that_cannot_be_split_is_refused():
    batch = square_batch(8, 8) | {"pixel_values": torch.zeros(3, 3, 16, 16)}
    with pytest.raises(PruningError, match=r"8 samples with 8 tokens each.*one sample more"):
        Walk(zoo.build(Case("LlamaForCausalLM")), [batch], wanda)


def test_a_weight_that_is_called_and_used_otherwise_is_refused_by_name():
    model = zoo.build(Case("LlamaForCausalLM"))
    matrix = model.blocks[1].matrices[3]
    layer = model.module.model.layers[1].mlp
    forward = layer.forward
    layer.forward = lambda x: forward(x) + x @ matrix.module.weight.T
    told = rf"{matrix.name} has its weight used without a call"
    with pytest.raises(PruningError, match=told):
        walked(model, [square_batch(2, 8)])


def test_asking_for_the_format_of_a_weight_or_setting_it_is_no_use_of_it():
    model = zoo.build(Case("LlamaForCausalLM"))
    layer, linear = model.module.model.layers[1].mlp, model.blocks[1].matrices[3].module
    forward = layer.forward

    def asking(x):
        linear.to(x.dtype)  # as the routers of Switch and NLLB do
        return forward(x.to(linear.weight.dtype)) if linear.weight.dim() == 2 else x

    layer.forward = asking
    assert walked(model, [square_batch(2, 8)])


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        # Its cache grows when a layer runs again.
        ("XLMWithLMHeadModel", {"emb_dim": 16, "n_words": 40}, "size of the tensor"),
        (
            "ReformerForMaskedLM",  # gradients of its own, within the layers
            {
                "attn_layers": ["local", "local"],
                "is_decoder": False,
                "attention_head_size": 8,
                "feed_forward_size": 24,
                "axial_pos_embds": False,
                "local_attn_chunk_length": 4,
            },
            "does not require grad",
        ),
    ],
)
def test_models_through_which_no_gradient_comes_back_are_refused(name, settings, reason):
    model = zoo.build(Case(name, settings))
    with pytest.raises(PruningError, match=rf"no gradient comes back through {name} \(.*{reason}"):
        ecoflap.score(model, zoo.batches(Case(name, settings, padded=False), model))


def test_a_tower_of_videos_sees():
    model = zoo.build(Case("LlamaForCausalLM"))
    towers = {
        "model.video_tower.encoder.layers": "vision",
        "model.image_tower.encoder.layers": "vision",
        "model.language_model.layers": "language",
    }
    assert {name: model.tower_of(name) for name in towers} == towers


def test_a_square_batch_whose_loss_compares_samples_stays_whole():
    model = tiny.clip_model()
    side = model.module.config.vision_config.image_size
    batch = square_batch(7, 7)
    del batch["labels"]
    generator = torch.Generator().manual_seed(1)
    batch["pixel_values"] = torch.randn(7, 3, side, side, generator=generator)
    assert_as_in_plain_forwards(
        model,
        [batch],
        lambda matrix, b: None if matrix.tower == "vision" else b["attention_mask"].bool(),
    )


def bridge_tower() -> generic.Adapter:
    """Its steps run in an order in which an early one comes again after later ones."""
    text = TEXT | {"hidden_size": 64, "num_hidden_layers": 3}
    vision = {"hidden_size": 64, "num_hidden_layers": 3, "patch_size": 8, "image_size": 16}
    config = transformers.BridgeTowerConfig(
        hidden_size=64,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        text_config=text,
        vision_config=vision,
    )
    module = transformers.BridgeTowerForImageAndTextRetrieval(config)
    return generic.Adapter(randomize(module, 0.08), None)


def test_a_step_that_comes_again_after_later_ones_is_walked():
    model = bridge_tower()
    generator = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(3, 40, (2, 8), generator=generator),
        "pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
        "labels": torch.tensor([1, 0]),
    }
    calls = Walk(model, [batch], wanda).surveys[0][0].calls
    assert any(calls.count(step) > 1 for step in calls)
    assert_as_in_plain_forwards(model, [batch], lambda *_: None)


BART = {"vocab_size": 40, "decoder_start_token_id": 2}


def test_tokens_that_a_decoder_is_given_are_all_real():
    model = zoo.build(Case("BartForConditionalGeneration", BART))
    batch = square_batch(2, 8)
    given = torch.randint(2, 30, (2, 5), generator=torch.Generator().manual_seed(3))
    labels = given.clone()
    labels[:, :2] = -100  # a prompt, which is read all the same

    def real(matrix, b):
        crossed = "encoder_attn" in matrix.name and matrix.name.endswith(("k_proj", "v_proj"))
        return None if ".decoder." in matrix.name and not crossed else b["attention_mask"].bool()

    batch |= {"decoder_input_ids": given, "labels": labels}
    assert_as_in_plain_forwards(model, [batch], real)


def test_a_decoder_that_reads_the_text_moved_on_by_one_leaves_its_padding_out():
    """Where labels are no tokens; expected: those that the decoder reads and are no padding."""
    model = zoo.build(Case("BartForSequenceClassification", BART | {"pad_token_id": 0}))
    batch = square_batch(2, 8)
    batch["input_ids"][:, -1] = 1  # the end, by which this class finds its token
    batch["input_ids"][0, 4] = 1
    batch["input_ids"][0, 5:] = 0
    batch["labels"] = torch.tensor([0, 1])
    read = []
    embed = model.module.model.decoder.embed_tokens
    handle = embed.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        model.loss(batch)
    handle.remove()
    decoded = read[0] != 0

    def real(matrix, b):
        crossed = "encoder_attn" in matrix.name and matrix.name.endswith(("k_proj", "v_proj"))
        return decoded if ".decoder." in matrix.name and not crossed else b["attention_mask"].bool()

    assert_as_in_plain_forwards(model, [batch], real)


def with_noise(model: generic.Adapter, noise) -> generic.Adapter:
    layer = model.module.model.layers[0]
    forward = layer.forward
    layer.forward = lambda x, *args, **kwargs: noise(forward(x, *args, **kwargs))
    return model


USES = {
    "score": lambda model, batches: ecoflap.score(model, batches),
    "prune": lambda model, batches: ecoflap.prune(
        model, batches, ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_that_is_random_is_refused(use):
    model = zoo.build(Case("LlamaForCausalLM"))
    with_noise(model, lambda x: torch.nn.functional.dropout(x, 0.1, training=True))
    with pytest.raises(ModelError, match="two forwards of LlamaForCausalLM on one batch differ"):
        USES[use](model, [square_batch(2, 8)])


def test_random_numbers_that_change_nothing_are_no_matter():
    model = zoo.build(Case("LlamaForCausalLM"))
    with_noise(model, lambda x: x if torch.rand(()) >= 0 else -x)
    assert len(ecoflap.score(model, [square_batch(2, 8)]))


def test_a_model_in_training_is_scored_in_eval_mode():
    scores = []
    for training in (False, True):
        model = zoo.build(Case("LlamaForCausalLM", {"attention_dropout": 0.3}))
        model.module.train(training)
        scores.append(ecoflap.score(model, [square_batch(2, 8)])["score"].tolist())
    assert scores[0] == scores[1]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "wrong",
    [
        {"input_ids": torch.full((2, 8), 99)},  # beyond the vocabulary
        {"input_ids": torch.zeros(2, 8)},
        {"labels": torch.zeros(2, 5, dtype=torch.long)},
        {"labels": torch.full((2, 8), 99)},
    ],
)
def test_a_batch_that_the_model_cannot_take_is_told(wrong, use):
    with pytest.raises(ModelError, match=r"cannot run on a batch of input_ids \[2, 8\].*\("):
        USES[use](zoo.build(Case("LlamaForCausalLM")), [square_batch(2, 8) | wrong])


DYNAMIC = {
    "max_position_embeddings": 16,
    "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
}


@pytest.mark.parametrize("use", USES)
def test_positions_that_depend_on_earlier_texts_are_refused(use):
    model = zoo.build(Case("LlamaForCausalLM", DYNAMIC))
    with pytest.raises(ModelError, match="texts of 8 to 40 tokens.*at most 16 tokens, or all of"):
        USES[use](model, [square_batch(2, 40), square_batch(2, 8)])
    USES[use](model, [square_batch(2, 16), square_batch(2, 8)])


def test_texts_of_one_length_have_the_same_scores_twice():
    model = zoo.build(Case("LlamaForCausalLM", DYNAMIC))
    batches = [square_batch(2, 40), square_batch(3, 40)]
    ecoflap.score(model, batches)  # after which the model has seen such texts
    once, twice = (ecoflap.score(model, batches)["score"].tolist() for _ in range(2))
    assert once == twice
