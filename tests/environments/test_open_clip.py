"""EVA-CLIP against open_clip alone, in open_clip's environment: make test-environments."""

import checkpoints
import numpy as np
import plain
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

import ecoflap
from ecoflap.data import sampling
from ecoflap.errors import ModelError
from ecoflap.models.adapters.open_clip import open_clip  # the library, not our module

pytestmark = pytest.mark.environments
TEXTS = ["a dog", "what is in the house", "the big red cat"]
VISION = {"vision": "visual.trunk.blocks"}


@timm.models.register_model
def eva_giant_small(pretrained=False, **settings):
    """EVA ViT-g as timm builds it, with small sizes."""
    sizes = {"img_size": 28, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return timm.create_model("eva_giant_patch14_clip_224", **sizes, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eva")
    checkpoints.open_clip(folder, "eva_giant_small", 28)
    return folder


@pytest.fixture(scope="module")
def library(folder):
    """The model and its transform, as open_clip loads them."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform


@pytest.fixture
def model(folder):
    return ecoflap.load(folder, device="cpu", family="open-clip", blocks=VISION)


def pictures():
    noise = np.random.default_rng(0)
    sizes = [(16, 16), (20, 32), (40, 18)]
    return [Image.fromarray(noise.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in sizes]


@pytest.fixture
def batches(model):
    pairs = zip(pictures() * 2, TEXTS + TEXTS[::-1], strict=True)
    return sampling.batches(model.encode([{"image": i, "caption": t} for i, t in pairs]), 3)


def features(library, folder):
    """Embeddings by open_clip alone, one picture and one text at a time."""
    module, transform = library
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        images = [module.encode_image(transform(i)[None], normalize=True) for i in pictures()]
        texts = [module.encode_text(tokenizer([text]), normalize=True) for text in TEXTS]
    return torch.cat(images), torch.cat(texts), module.logit_scale.exp()


def test_similarities_are_open_clip_s(model, library, folder):
    images, texts, scale = features(library, folder)
    expected = scale * images @ texts.T
    assert expected.std() > 1e-3
    torch.testing.assert_close(
        model.similarity(pictures(), TEXTS), expected.detach(), rtol=1e-4, atol=1e-5
    )


def test_the_loss_is_the_contrastive_one(model, batches, library, folder):
    images, texts, scale = features(library, folder)
    logits, own = scale * images @ texts.T, torch.arange(3)
    expected = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    with torch.no_grad():
        assert model.loss(batches[0]).item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ModelError, match="one picture and its caption.*at least two"):
        model.loss({name: tensor[:1] for name, tensor in batches[0].items()})


def test_the_linear_of_queries_keys_and_values_is_called_and_nothing_else_changes(model, library):
    pixels = torch.stack([library[1](picture) for picture in pictures()])
    with torch.no_grad():
        ours = model.module.encode_image(pixels)
        torch.testing.assert_close(ours, library[0].encode_image(pixels), rtol=1e-5, atol=1e-6)
    seen = []
    theirs, mine = (m.visual.trunk.blocks[1] for m in (library[0], model.module))
    handles = [
        theirs.norm1.register_forward_hook(lambda *call: seen.append(call[-1])),
        theirs.attn.qkv.register_forward_hook(lambda *_: pytest.fail("timm calls it by itself")),
        mine.attn.qkv.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    with torch.no_grad():
        library[0].encode_image(pixels)
        model.module.encode_image(pixels)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-5, atol=1e-6)


def test_only_the_named_tower_is_pruned(model, folder):
    assert {matrix.tower for matrix in model.matrices()} == {"vision"}
    assert len(list(model.matrices())) == 3 * 4
    everything = ecoflap.load(folder, device="cpu")
    towers = [matrix.name for matrix in everything.matrices() if matrix.tower == "language"]
    assert len(towers) == 2 * 2  # of nn.MultiheadAttention none is called
    assert all(".mlp." in name for name in towers)


@pytest.mark.parametrize("blocks", [VISION, None])
def test_statistics_are_those_of_plain_forwards(folder, batches, blocks):
    model = ecoflap.load(folder, device="cpu", blocks=blocks)
    plain.check_statistics(model, batches, lambda name, batch: None)


@pytest.mark.parametrize("blocks", [VISION, None])
def test_gradnorm_is_that_of_a_plain_backward(folder, batches, blocks):
    plain.check_gradnorm(ecoflap.load(folder, device="cpu", blocks=blocks), batches)


def test_sparsity_0_changes_no_byte(model, batches):
    plain.check_dense_prune(model, batches)


@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_what_is_saved_loads_again_here_and_in_open_clip(batches, folder, offload, tmp_path):
    model = ecoflap.load(folder, device="cpu", blocks=VISION, offload=offload)
    plain.prune_half(model, batches)
    model.save(tmp_path)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    again = ecoflap.load(tmp_path, device="cpu", blocks=VISION)
    stored = load_file(tmp_path / "open_clip_model.safetensors")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, stored[name])
        assert torch.equal(tensor, again.module.state_dict()[name])
    zeros = sum((m.module.weight == 0).sum().item() for m in again.matrices())
    assert zeros == round(0.5 * sum(m.n_weights for m in again.matrices()))


def test_a_folder_without_weights_is_told(folder, tmp_path):
    config = (folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(ModelError, match="cannot load a model from.*could not be loaded"):
        ecoflap.load(tmp_path, device="cpu")
    with pytest.raises(ModelError, match="offload 'disk'.*none, cpu"):
        ecoflap.load(folder, device="cpu", offload="disk")
    with pytest.raises(ModelError, match="of the family open-clip. Allowed: clip"):
        ecoflap.load(folder, device="cpu", family="clip")
