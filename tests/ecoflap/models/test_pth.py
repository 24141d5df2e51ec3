"""Published checkpoints: LAVIS's names, spelled out here, and files that are refused."""

import pickle
from pathlib import Path

import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ModelError, PruningError
from ecoflap.models.checkpoints import pth
from ecoflap.models.model import Model
from ecoflap.pruning import changes
from ecoflap.pruning.published_checkpoint import take_checkpoint
from helpers import architectures, tiny
from helpers.lavis import BLIP, half_removed, lavis_blip2, renamed


def dense(module):
    """A copy whose weights differ, with zero biases of keys, as EVA's are."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("qkv.bias"):
                tensor.chunk(3)[1].zero_()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    return module, state


CASES = {
    "blip2": (lambda: tiny.blip2_model().module, lavis_blip2, "lavis-blip2"),
    "blip2-matching": (
        architectures.ARCHITECTURES["blip2-matching"].build,
        lavis_blip2,
        "lavis-blip2",
    ),
    **{
        name: (
            architectures.ARCHITECTURES[name].build,
            lambda module: renamed(module.state_dict(), BLIP),
            "lavis-blip",
        )
        for name in ("blip-vqa", "blip-captioning", "blip-retrieval")
    },
    "t5": (
        architectures.ARCHITECTURES["t5"].build,
        lambda module: {f"t5_model.{name}": t for name, t in module.state_dict().items()},
        "t5",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_lavis_gets_every_weight_to_its_place(case, tmp_path):
    build, theirs, form = CASES[case]
    module, expected = dense(build())
    content = theirs(module)
    content |= {"temp": torch.ones(()), "visual_encoder_m.cls_token": torch.ones(1)}
    assert not set(content) & {"vision_model.embeddings.class_embedding"}
    torch.save({"model": content, "epoch": 3}, tmp_path / "x.pth")
    other = Model(build(), None)
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.fill_(7)
    changed = pth.put(other, pth.read(tmp_path / "x.pth", form))
    for name, tensor in other.module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert set(changed) <= set(expected)


def test_a_vision_tower_alone_leaves_the_rest(tmp_path):
    module, expected = dense(tiny.blip2_model().module)
    tower = {
        name.removeprefix("visual_encoder."): tensor
        for name, tensor in lavis_blip2(module).items()
        if name.startswith("visual_encoder.")
    }
    torch.save(tower, tmp_path / "eva.pth")
    other = tiny.blip2_model()
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.fill_(7)
    changed = pth.put(other, pth.read(tmp_path / "eva.pth", "eva-vit"))
    assert all(name.startswith("vision_model.") for name in changed)
    for name, tensor in other.module.state_dict().items():
        same = name.startswith("vision_model.") and "post_layernorm" not in name
        assert torch.equal(tensor, expected[name] if same else torch.full_like(tensor, 7)), name


class Malicious:
    """An object whose pickle touches a file when it is read."""

    def __reduce__(self):
        """Names what a careless reader would call."""
        return (Path.touch, (Path("harm"),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": Malicious()}))
    with pytest.raises(ModelError, match="nothing that runs code"):
        pth.read(tmp_path / "x.pth", "t5")
    torch.save({"model": Malicious()}, tmp_path / "y.pth")
    with pytest.raises(ModelError, match="nothing that runs code"):
        pth.read(tmp_path / "y.pth", "t5")
    assert not (tmp_path / "harm").exists()


def test_files_that_do_not_fit_are_told(tmp_path):
    torch.save({"model": {"a.b": torch.ones(2)}}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"1 of 1 weights do not fit .*: a\.b"):
        pth.put(tiny.llama_model(), pth.read(tmp_path / "other.pth", "t5"))
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ModelError, match="holds no weights"):
        pth.read(tmp_path / "empty.pth", "t5")
    with pytest.raises(ModelError, match="cannot read"):
        pth.read(tmp_path / "nowhere.pth", "t5")
    with pytest.raises(ModelError, match="Did you mean 'lavis-blip'"):
        pth.read(tmp_path / "empty.pth", "lavis-blip3")


def test_a_variant_stores_all_that_changed_and_is_applied_to_the_dense_model(tmp_path):
    pruned, _ = dense(half_removed(tiny.blip2_model().module))
    torch.save(lavis_blip2(pruned), tmp_path / "x.pth")
    model = tiny.blip2_model()
    file = str(tmp_path / "x.pth")
    report, further = take_checkpoint(model, file=file, form="lavis-blip2", sparsity="0.5")
    assert report["achieved_sparsity"].between(0.5, 0.51).all()
    assert "vision_model.post_layernorm.weight" in further
    head = artifacts.header("pruned", rule="test", code="", config={}, dense="d")
    path = tmp_path / "changes.safetensors"
    changes.save_changes(model, path, head, updates_weights=True, further=further)
    fresh = tiny.blip2_model()
    changes.apply_changes(fresh, path, "d")
    for name, tensor in fresh.module.state_dict().items():
        assert torch.equal(tensor, pruned.state_dict()[name]), name
    with pytest.raises(PruningError, match="has a sparsity of 0.50"):
        take_checkpoint(tiny.blip2_model(), file=file, form="lavis-blip2", sparsity="0.6")


def test_weights_that_the_number_format_cannot_hold_are_refused():
    model = tiny.blip2_model()
    name = "vision_model.post_layernorm.weight"
    given = {name: torch.full_like(model.module.get_parameter(name), 1e5)}
    assert name in pth.put(model, given)
    model.module.half()
    with pytest.raises(ModelError, match=f"{name} is not finite in float16"):
        pth.put(model, given)
