"""The same code for every architecture, against plain forwards and backwards with hooks."""

import fnmatch
import json
import math
from functools import partial

import pandas as pd
import pytest
import torch
import transformers

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.engine import replay
from ecoflap.engine.walk import Walk
from ecoflap.errors import ModelError, PruningError
from ecoflap.models.adapters import generic
from helpers import architectures, hooks

ALL = architectures.ARCHITECTURES
SAVED = ("t5", "blip-vqa", "llava", "qwen2.5-vl", "florence2")


@pytest.fixture(params=ALL)
def architecture(request):
    return ALL[request.param]


def real_tokens(architecture, matrix, batch):
    """Which tokens are real, from the table of the architecture."""
    name, key = matrix.name, None if matrix.tower == "vision" else "attention_mask"
    for pattern, entry in architecture.real.items():
        if fnmatch.fnmatch(name, f"*{pattern}*"):
            key = entry
            break
    if key not in batch:
        return None
    real = batch[key] != -100 if key == "labels" else batch[key].bool()
    return torch.cat([real, real.roll(-1, 0)]) if architecture.pairs else real


def plan(model, sparsity):
    return pd.DataFrame({"name": [m.name for m in model.matrices()], "sparsity": sparsity})


def test_towers_and_blocks_are_those_of_the_config(architecture):
    model = architecture.model()
    towers = [block.tower for block in model.blocks if block.tower is not None]
    assert {tower: towers.count(tower) for tower in towers} == architecture.blocks
    assert all(block.matrices for block in model.blocks if block.tower is not None)


def test_sparsity_zero_changes_no_byte(architecture):
    model = architecture.model()
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    report = ecoflap.prune(model, architecture.batches(), plan(model, 0.0), criterion="wanda")
    assert len(report) == len(list(model.matrices()))
    after = model.module.state_dict()
    assert all(
        torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8))
        for name, tensor in before.items()
        if tensor.ndim
    )


def test_statistics_equal_those_of_plain_forwards(architecture):
    model, batches = architecture.model(), architecture.batches()
    expected = hooks.squares(model, batches, partial(real_tokens, architecture))
    walk = Walk(model, batches, wanda)
    seen = set()
    for block in walk:
        for name, squares in walk.statistics(block).items():
            torch.testing.assert_close(
                squares.double(), expected[name], rtol=1e-5, atol=1e-8, msg=name
            )
            seen.add(name)
        walk.advance(block)
    assert seen == {matrix.name for matrix in model.matrices()}


def test_every_text_has_padding_that_counts(architecture):
    model, batches = architecture.model(), architecture.batches()
    texts = [m for m in model.matrices() if real_tokens(architecture, m, batches[0]) is not None]
    assert bool(texts) == ("language" in architecture.blocks)
    masks = [real_tokens(architecture, matrix, batches[0]) for matrix in texts]
    assert not any(mask.all() for mask in masks)


def test_replayed_losses_equal_full_ones_to_the_bit(architecture):
    model, (batch,) = architecture.model(), architecture.batches(1)
    modules = model.block_modules()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        dense, trace = replay.run(modules, lambda: model.loss(batch))
        for block in model.blocks:
            if not block.matrices:
                continue
            weight = block.matrices[-1].module.weight
            original = weight.detach().clone()
            weight.add_(torch.randn(weight.shape, generator=generator))
            full = model.loss(batch)
            start = trace.first_call(block.index)
            replayed, _ = replay.run(modules, lambda: model.loss(batch), trace=trace, start=start)
            weight.copy_(original)
            assert torch.equal(replayed, full), block.name
            assert not torch.equal(full, dense), block.name


def test_streamed_gradient_norms_equal_plain_ones(architecture):
    model, batches = architecture.model(), architecture.batches()
    weights = [matrix.module.weight for matrix in model.matrices()]
    expected = torch.zeros(len(weights))
    for batch in batches:
        gradients = torch.autograd.grad(model.loss(batch), weights)
        norms = torch.stack([gradient.norm() for gradient in gradients])
        expected += math.sqrt(2 / math.pi) * norms / len(batches)
    scores = ecoflap.score(model, batches, estimator="gradnorm")["score"]
    torch.testing.assert_close(
        torch.tensor(scores.to_numpy()), expected.double(), rtol=1e-6, atol=0
    )
    # Queries and keys of CLIP's vision move this loss by 1e-20 in float64: rounding decides.
    assert expected.count_nonzero() > 0.8 * len(expected)


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_folder_is_loaded_pruned_and_saved(name, tmp_path):
    architecture = ALL[name]
    module = architecture.model().module
    module.save_pretrained(tmp_path / "dense")
    model = ecoflap.load(tmp_path / "dense", device="cpu")
    assert type(model.module) is type(module)
    assert isinstance(model, generic.Adapter)
    batches = architecture.batches()
    scores = ecoflap.score(model, batches, estimator="gradnorm")
    allocation = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.6")
    report = ecoflap.prune(model, batches, allocation, criterion="wanda")
    removed = (report["achieved_sparsity"] * report["n_weights"]).sum()
    assert removed / report["n_weights"].sum() == pytest.approx(0.5, abs=0.05)
    model.save(tmp_path / "pruned")
    again = type(module).from_pretrained(tmp_path / "pruned", dtype=torch.float32)
    for row in report.itertuples():
        zeros = (again.get_submodule(row.name).weight == 0).float().mean().item()
        assert zeros == pytest.approx(row.achieved_sparsity), row.name


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "word": 2}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")


def test_a_tokenizer_in_the_folder_is_loaded_and_saved(tmp_path):
    ALL["t5"].model().module.save_pretrained(tmp_path / "dense")
    tokenizer().save_pretrained(tmp_path / "dense")
    model = ecoflap.load(tmp_path / "dense", device="cpu")
    model.save(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert model.processor("a word").input_ids == again("a word").input_ids == [1, 2]


def test_checkpoints_that_name_no_class_of_transformers_are_told(tmp_path):
    ALL["t5"].model().module.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["T5ForConditionalGenerations"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="Did you mean 'T5ForConditionalGeneration'"):
        ecoflap.load(tmp_path, device="cpu")
    config |= {"model_type": "novel", "auto_map": {"AutoConfig": "novel.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "novel.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ModelError, match="needs Python code of its own"):
        ecoflap.load(tmp_path, device="cpu")


def test_only_the_named_lists_are_pruned():
    architecture = ALL["qwen2.5-vl"]
    module = architecture.model().module
    model = generic.Adapter(module, None, {"language": "model.language_model.layers"})
    assert {matrix.tower for matrix in model.matrices()} == {"language"}
    assert len(model.blocks) == 5  # the vision blocks still run, replayed
    ecoflap.prune(model, architecture.batches(), plan(model, 0.5))
    for name, parameter in model.module.model.visual.blocks.named_parameters():
        assert (parameter != 0).all(), name


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({"language": "encoder.blok"}, "no ModuleList 'encoder.blok'.*encoder.block.*Did you mean"),
        ({"text": "encoder.block"}, "unknown tower 'text'"),
        ({"language": ["encoder.block", "encoder.block.0.layer"]}, "share blocks"),
        ({"language": []}, "no blocks to prune"),
    ],
)
def test_wrong_lists_are_told(blocks, told):
    with pytest.raises(ModelError, match=told):
        generic.Adapter(ALL["t5"].build(), None, blocks)


def swin():
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    return transformers.SwinForImageClassification(config)


def test_stages_are_blocks_unless_the_lists_inside_are_named():
    batch = {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.tensor([0, 1])}
    lists = [f"swin.encoder.layers.{stage}.blocks" for stage in range(2)]
    for names, count in ((None, 2), ({"vision": lists}, 4)):
        model = generic.Adapter(swin(), None, names)
        assert len(model.blocks) == count
        report = ecoflap.prune(model, [batch], plan(model, 0.5))
        assert report["achieved_sparsity"].to_numpy() == pytest.approx(0.5)


def gpt2():
    return transformers.GPT2Config(
        n_embd=16, n_head=2, n_layer=2, vocab_size=40, bos_token_id=1, eos_token_id=1
    )


def test_transposed_weights_are_refused_or_told(caplog):
    with pytest.raises(ModelError, match=r"weights in its lists: Conv1D \(8\)"):
        generic.Adapter(transformers.GPT2LMHeadModel(gpt2()), None)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**architectures.VISION), gpt2()
    )
    generic.Adapter(transformers.VisionEncoderDecoderModel(config), None)
    assert "stay dense: Conv1D" in caplog.text


def test_experts_in_one_tensor_stay_dense_and_are_told(caplog):
    config = transformers.MixtralConfig(**architectures.GROUPED, num_local_experts=2)
    model = generic.Adapter(transformers.MixtralForCausalLM(config), None)
    assert {m.name.split(".")[-2] for m in model.matrices()} == {"self_attn"}
    assert "MixtralExperts (4)" in caplog.text


class OwnLayer(torch.nn.Module):
    """An attention of torch and a Linear."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, states):
        """Attends, then adds."""
        states = self.attention(states, states, states)[0]
        return states + self.linear(states)


class Own(torch.nn.Module):
    """Two layers of a kind."""

    def __init__(self, layer: type = OwnLayer):
        super().__init__()
        self.layers = torch.nn.ModuleList([layer(), layer()])

    def forward(self, inputs, attention_mask=None):
        """Returns a loss, as the models of transformers do."""
        for layer in self.layers:
            inputs = layer(inputs)
        return transformers.utils.ModelOutput(loss=inputs.square().mean())


def test_the_attention_of_torch_stays_dense_and_is_told(caplog):
    model = generic.Adapter(Own(), None)
    assert [matrix.name for matrix in model.matrices()] == ["layers.0.linear", "layers.1.linear"]
    assert "NonDynamicallyQuantizableLinear (2)" in caplog.text
    assert "MultiheadAttention (2)" in caplog.text
    ecoflap.prune(model, [{"inputs": torch.randn(2, 3, 16)}], plan(model, 0.5))


def test_shared_weights_are_refused():
    shared = Own()
    shared.layers[1].linear.weight = shared.layers[0].linear.weight
    with pytest.raises(ModelError, match="layers.0.linear and layers.1.linear of Own are one"):
        generic.Adapter(shared, None)


def test_tokens_that_fit_no_mask_are_told():
    model = generic.Adapter(Own(), None)
    batch = {"inputs": torch.randn(2, 3, 16), "attention_mask": torch.ones(2, 4)}
    with pytest.raises(PruningError, match=r"layers.0.linear reads tokens \(2, 3\).*\(2, 4\)"):
        ecoflap.prune(model, [batch], plan(model, 0.5))


def test_an_input_changed_in_place_is_read_again():
    class InPlace(OwnLayer):
        def __init__(self):
            super().__init__()
            self.second = torch.nn.Linear(16, 16)

        def forward(self, states):
            first = self.linear(states)
            return first + self.second(states.mul_(2))

    model = generic.Adapter(Own(InPlace), None)
    walk = Walk(model, [{"inputs": torch.randn(2, 3, 16)}], wanda)
    first, second = walk.statistics(next(iter(walk))).values()
    torch.testing.assert_close(second, 4 * first)


def test_a_model_without_a_loss_is_told():
    model = ALL["t5"].model()
    batch = {
        **architectures.tokens(torch.Generator().manual_seed(0)),
        "decoder_input_ids": torch.ones(2, 3).long(),
    }
    with pytest.raises(ModelError, match="T5ForConditionalGeneration returns no loss.*labels"):
        model.loss(batch)
