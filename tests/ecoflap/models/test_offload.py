"""Weights that come and go with their block give the same bytes as weights that stay."""

import json
import os
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import ecoflap
from ecoflap.engine import replay, storage
from ecoflap.errors import ModelError, PruningError
from ecoflap.models import offload as offloading
from ecoflap.models.adapters import generic
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.models.offload import HostStore, Offload
from ecoflap.pruning import choosing
from ecoflap.scores import matrix_table
from helpers import architectures, tiny


@pytest.fixture(params=tiny.MODELS)
def family(request):
    return tiny.MODELS[request.param]


def offloaded(model):
    blocks = [(block.name, block.module) for block in model.blocks]
    held = {f"{name}.{k}": p for name, module in blocks for k, p in module.named_parameters()}
    model.weights = Offload(blocks, HostStore(held), torch.device("cpu"))
    return model


def test_weights_are_gone_outside_of_their_block(family):
    model = offloaded(family())
    for block in model.blocks:
        assert {p.device.type for p in block.module.parameters()} == {"meta"}
    with model.resident(0), model.resident(0):
        assert {p.device.type for p in model.blocks[0].module.parameters()} == {"cpu"}
    assert {p.device.type for p in model.blocks[0].module.parameters()} == {"meta"}


def test_weights_that_the_number_format_cannot_hold_never_reach_the_device():
    model = tiny.llama_model()
    first = next(iter(model.matrices()))
    with torch.no_grad():
        first.module.weight[0, 0] = 1e5
    store = HostStore({f"{first.name}.weight": first.module.weight})
    first.module.weight = torch.nn.Parameter(torch.zeros_like(first.module.weight).half())
    short = Offload([(first.name, first.module)], store, torch.device("cpu"))
    seen = f"{first.name}.weight is not finite in float16"
    with pytest.raises(ModelError, match=seen), short.resident(0):
        pass


@pytest.mark.parametrize("estimator", ["gradnorm", "first", "zeroth", "magnitude", "local-wanda"])
def test_scores_are_the_same(family, estimator):
    model = family()
    batches = tiny.batches(model, 2)
    expected = ecoflap.score(model, batches, estimator=estimator)
    found = ecoflap.score(offloaded(family()), batches, estimator=estimator)
    assert found.equals(expected)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_pruned_weights_are_the_same(family, criterion):
    model, other = family(), offloaded(family())
    batches = tiny.batches(model, 2)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    expected = ecoflap.prune(model, batches, plan, criterion=criterion)
    found = ecoflap.prune(other, batches, plan, criterion=criterion)
    columns = ["name", "achieved_sparsity", "block_error"]
    assert found[columns].equals(expected[columns])
    for matrix in model.matrices():
        stored = other.weights.store.read(f"{matrix.name}.weight")
        assert torch.equal(stored, matrix.module.weight), matrix.name
    for batch in batches:
        with torch.no_grad():
            loss, _ = replay.run(
                other.block_modules(),
                lambda batch=batch: other.loss(batch),
                around=other.resident,
                places=storage.places(other),
            )
            assert torch.equal(loss, model.loss(batch))


@pytest.fixture(params=["llama", "blip2"])
def checkpoint(request, tmp_path):
    """A checkpoint in several shards, as the hub has them, and the model that it holds."""
    model = tiny.MODELS[request.param]()
    model.module.save_pretrained(tmp_path / "dense", max_shard_size="20KB")
    assert len(list((tmp_path / "dense").glob("*.safetensors"))) > 1
    return model, tmp_path


@pytest.fixture(autouse=True)
def _no_processor(monkeypatch):
    """The checkpoints of these tests have neither tokenizer nor image processor."""
    monkeypatch.setattr(Loader, "processor", lambda *_: None)


@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
def test_a_checkpoint_is_pruned_and_saved_the_same_wherever_its_weights_wait(
    checkpoint, offload, monkeypatch
):
    model, folder = checkpoint
    monkeypatch.setattr(offloading, "SHARD_BYTES", 30_000)
    batches = tiny.batches(model, 2)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    expected = ecoflap.prune(model, batches, plan, criterion="sparsegpt")
    other = ecoflap.load(folder / "dense", device="cpu", offload=offload)
    found = ecoflap.prune(other, batches, plan, criterion="sparsegpt")
    columns = ["name", "achieved_sparsity", "block_error"]
    assert found[columns].equals(expected[columns])
    other.save(folder / "pruned")
    again = type(model.module).from_pretrained(folder / "pruned").state_dict()
    assert set(again) == set(model.module.state_dict())
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_a_disk_shard_is_no_larger_than_its_limit(checkpoint, monkeypatch):
    model, folder = checkpoint
    monkeypatch.setattr(offloading, "SHARD_BYTES", 30_000)
    ecoflap.load(folder / "dense", device="cpu", offload="disk").save(folder / "copy")
    index = json.loads((folder / "copy" / "model.safetensors.index.json").read_text())
    for file in set(index["weight_map"].values()):
        assert (folder / "copy" / file).stat().st_size < 30_000 + 10_000  # with the header


def test_activations_wait_in_files_with_disk(checkpoint):
    _, folder = checkpoint
    model = ecoflap.load(folder / "dense", device="cpu", offload="disk")
    places = storage.places(model)
    for tensor in (torch.randn(3, 4), torch.ones(2, dtype=torch.bool), torch.empty(0, 3)):
        kept = places.put(tensor)
        assert kept is not tensor
        assert torch.equal(places.get(kept), tensor)


def test_what_cannot_be_done_from_the_disk_is_said(checkpoint):
    model, folder = checkpoint
    batches = tiny.batches(model, 1)
    scores = ecoflap.score(model, batches)
    with pytest.raises(ModelError, match="offload 'gpu'"):
        ecoflap.load(folder / "dense", device="cpu", offload="gpu")
    other = ecoflap.load(folder / "dense", device="cpu", offload="disk")
    with pytest.raises(PruningError, match="chosen with offload='disk'"):
        choosing.choose_plan(
            other, batches, batches, {"a": scores}, [{"score": "a"}], sparsity="0.5"
        )


def test_a_checkpoint_in_use_is_not_saved_over_and_an_old_one_leaves_nothing(checkpoint):
    _, folder = checkpoint
    model = ecoflap.load(folder / "dense", device="cpu", offload="disk")
    with pytest.raises(ModelError, match="from which offload='disk' reads"):
        model.save(folder / "dense")
    with pytest.raises(ModelError, match="a file"):
        model.save(folder / "dense" / "config.json")
    (folder / "old").mkdir()
    (folder / "old" / "model.safetensors").write_bytes(b"of another model")
    model.save(folder / "old")
    type(model.module).from_pretrained(folder / "old")


def test_a_checkpoint_that_changes_while_it_is_read_is_told(checkpoint):
    model, folder = checkpoint
    shutil.copytree(folder / "dense", folder / "moving")
    other = ecoflap.load(folder / "moving", device="cpu", offload="disk")
    for file in (folder / "moving").glob("*.safetensors"):
        os.utime(file, ns=(1, 1))
    with pytest.raises(ModelError, match="has changed since the model was loaded"):
        ecoflap.score(other, tiny.batches(model, 1), estimator="magnitude")


@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
def test_a_saved_config_asks_for_caches_as_the_loaded_one_did(tmp_path, offload):
    architectures.ARCHITECTURES["t5"].build().save_pretrained(tmp_path / "dense")
    model = ecoflap.load(tmp_path / "dense", device="cpu", offload=offload)
    assert not model.module.config.use_cache
    model.save(tmp_path / "saved")
    one, other = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("dense", "saved")
    )
    assert one["use_cache"]
    assert one == other
    assert not model.module.config.use_cache


def t5_checkpoint(folder):
    """A T5 whose ``wo`` transformers keeps in float32 where all else is float16."""
    architectures.ARCHITECTURES["t5"].build().float().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_transformers_keeps_in_float32_stays_so_wherever_it_waits(tmp_path, dtype):
    folder = t5_checkpoint(tmp_path / "t5")
    plain = transformers.T5ForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, dtype)
    ).state_dict()
    wide = [name for name, tensor in plain.items() if tensor.dtype == torch.float32]
    assert bool(wide) == (dtype == "float16")
    batches = [architectures.ARCHITECTURES["t5"].batch(torch.Generator().manual_seed(0))]
    scores = []
    for offload in ("none", "cpu", "disk"):
        loader = Loader(str(folder), dtype=getattr(torch, dtype), device="cpu", offload=offload)
        model = generic.Adapter(loader.module(transformers.T5ForConditionalGeneration, None), None)
        loader.place(model)
        scores.append(ecoflap.score(model, batches)["score"].tolist())
        model.save(tmp_path / offload)
        stored = {
            name: tensor
            for file in (tmp_path / offload).glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
        assert all(torch.equal(tensor, plain[name]) for name, tensor in stored.items())
        assert {name: t.dtype for name, t in stored.items()} == {n: plain[n].dtype for n in stored}
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("same_keys", [False, True])
def test_other_files_beside_a_checkpoint_are_not_saved_with_it(tmp_path, same_keys, shards):
    dense = tmp_path / "dense"
    tiny.llama_model().module.save_pretrained(dense, max_shard_size="20KB" if shards else "1GB")
    weights = {k: t for file in dense.glob("*.safetensors") for k, t in load_file(file).items()}
    assert (dense / "model.safetensors").is_file() != shards
    other = {k if same_keys else f"other.{k}": t + 1 for k, t in weights.items()}
    save_file(other, dense / "model_ema.safetensors", metadata={"format": "pt"})
    loader = Loader(str(dense), dtype=torch.float32, device="cpu", offload="disk")
    model = generic.Adapter(loader.module(transformers.LlamaForCausalLM, None), None)
    loader.place(model)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ecoflap.prune(model, [], plan, criterion="magnitude")
    model.save(tmp_path / "pruned")
    found = {}
    for file in (tmp_path / "pruned").glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == weights.keys()
    names = [f"{matrix.name}.weight" for matrix in model.matrices()]
    zeros = sum((found[name] == 0).sum().item() for name in names)
    assert zeros == sum(found[name].numel() for name in names) / 2
