"""A vision tower put into another model, and that model evaluated with what the tower lost."""

import itertools

import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ModelError
from ecoflap.models.adapters.blip2 import Adapter as Blip2
from ecoflap.models.adapters.blip2_matching import Adapter as Matching
from ecoflap.models.checkpoints import sources, towers
from ecoflap.models.checkpoints.towers import put_towers
from ecoflap.models.model import Model
from ecoflap.pruning import changes, layerwise
from ecoflap.scores import matrix_table
from helpers import architectures, tiny
from helpers.noise import randomize


def matching():
    return Matching(architectures.ARCHITECTURES["blip2-matching"].build(), None)


def tower(model):
    state = model.module.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith("vision_model.")}


def test_the_tower_and_nothing_else_is_copied():
    one, other = matching(), tiny.blip2_model()
    before = {name: tensor.clone() for name, tensor in one.module.state_dict().items()}
    put_towers(one, other)
    found = {name for name in tower(one) if "post_layernorm" not in name}
    assert found < set(tower(one))  # the norm behind it is ln_vision in LAVIS, which stays
    assert any("embeddings" in name for name in found)  # more than the blocks
    for name, tensor in one.module.state_dict().items():
        expected = tower(other)[name] if name in found else before[name]
        assert torch.equal(tensor, expected), name


def test_both_towers_leave_what_lies_between():
    one, other = tiny.blip2_model(), randomize(tiny.blip2_model().module, 5)
    before = {name: tensor.clone() for name, tensor in one.module.state_dict().items()}
    put_towers(one, Blip2(other, None), ["vision", "language"])
    between = ("qformer.", "query_tokens", "language_projection.", "vision_model.post_layernorm.")
    for name, tensor in one.module.state_dict().items():
        expected = before[name] if name.startswith(between) else other.state_dict()[name]
        assert torch.equal(tensor, expected), name


def test_position_embeddings_are_interpolated_for_larger_pictures():
    """A plane over the patches stays that plane, away from the edge; the first token stays."""
    wide, small = torch.zeros(1, 37, 2), torch.zeros(1, 10, 2)
    small[0, 0] = 7.0
    for row, column in itertools.product(range(3), repeat=2):
        small[0, 1 + 3 * row + column] = torch.tensor([row, column])
    found = towers._resized("vision.embeddings.position_embedding", small, wide)
    assert found.shape == wide.shape
    assert (found[0, 0] == 7).all()
    grid = found[0, 1:].reshape(6, 6, 2)
    assert torch.allclose(grid[..., 0], grid[..., 1].T)
    assert torch.allclose(grid[:, :1, 0], grid[..., 0])  # rows do not depend on the column
    assert grid.mean().item() == pytest.approx(1.0)
    assert (grid[1:, 0, 0] > grid[:-1, 0, 0]).all()
    assert towers._resized("vision.embeddings.other", small, wide) is small


def test_towers_that_differ_are_refused():
    with pytest.raises(ModelError, match=r"vision towers .* differ: vision_model"):
        put_towers(matching(), tiny.clip_model())
    with pytest.raises(ModelError, match="there is none"):
        put_towers(tiny.llama_model(), tiny.llama_model())


def test_a_tower_that_the_number_format_cannot_hold_is_refused():
    one, other = matching(), tiny.blip2_model()
    name = "vision_model.encoder.layers.0.layer_norm1.weight"
    with torch.no_grad():
        other.module.get_parameter(name).fill_(1e5)
    one.module.half()
    with pytest.raises(ModelError, match=f"{name} is not finite in float16"):
        put_towers(one, other)


def test_of_another_models_changes_only_the_tower_is_applied(tmp_path):
    one, other = matching(), tiny.blip2_model()
    put_towers(one, other)
    batches = tiny.batches(other)
    plan = matrix_table(other).assign(sparsity=0.5)
    layerwise.prune(other, batches, plan, criterion="magnitude")
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="d")
    changes.save_changes(other, tmp_path / "c.safetensors", head, updates_weights=False)
    changes.apply_changes(one, tmp_path / "c.safetensors", "d", towers=["vision"])
    for name, tensor in tower(one).items():
        assert "post_layernorm" in name or torch.equal(tensor, tower(other)[name]), name


def test_pickled_weights_become_safetensors_and_old_shards_go(tmp_path):
    module = tiny.llama_model().module
    module.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert sources.is_pickled(tmp_path)
    sources.rewrite(Model(type(module).from_pretrained(tmp_path), None), tmp_path)
    assert not sources.is_pickled(tmp_path)
    again = type(module).from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in module.state_dict().items())
