"""A vision tower put into another model, and that model evaluated with what the tower lost."""

import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ModelError
from ecoflap.models.adapters.blip2_matching import Adapter as Matching
from ecoflap.models.checkpoints import sources
from ecoflap.models.checkpoints.towers import put_vision_tower
from ecoflap.models.model import Model
from ecoflap.pruning import changes, layerwise
from ecoflap.scores import matrix_table
from helpers import architectures, tiny


def matching():
    return Matching(architectures.ARCHITECTURES["blip2-matching"].build(), None)


def tower(model):
    state = model.module.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith("vision_model.")}


def test_the_whole_tower_and_nothing_else_is_copied():
    one, other = matching(), tiny.blip2_model()
    before = {name: tensor.clone() for name, tensor in one.module.state_dict().items()}
    put_vision_tower(one, other)
    found = tower(one)
    assert any("post_layernorm" in name for name in found)  # more than the blocks
    for name, tensor in one.module.state_dict().items():
        expected = tower(other)[name] if name in found else before[name]
        assert torch.equal(tensor, expected), name


def test_towers_that_differ_are_refused():
    with pytest.raises(ModelError, match=r"vision towers .* differ: vision_model"):
        put_vision_tower(matching(), tiny.clip_model())
    with pytest.raises(ModelError, match="there is none"):
        put_vision_tower(tiny.llama_model(), tiny.llama_model())


def test_a_tower_that_the_number_format_cannot_hold_is_refused():
    one, other = matching(), tiny.blip2_model()
    name = "vision_model.post_layernorm.weight"
    with torch.no_grad():
        other.module.get_parameter(name).fill_(1e5)
    one.module.half()
    with pytest.raises(ModelError, match=f"{name} is not finite in float16"):
        put_vision_tower(one, other)


def test_of_another_models_changes_only_the_tower_is_applied(tmp_path):
    one, other = matching(), tiny.blip2_model()
    put_vision_tower(one, other)
    batches = tiny.batches(other)
    plan = matrix_table(other).assign(sparsity=0.5)
    layerwise.prune(other, batches, plan, criterion="magnitude")
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="d")
    changes.save_changes(other, tmp_path / "c.safetensors", head, updates_weights=False)
    changes.apply_changes(one, tmp_path / "c.safetensors", "d", towers=["vision"])
    for name, tensor in tower(one).items():
        assert torch.equal(tensor, tower(other)[name]), name


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
