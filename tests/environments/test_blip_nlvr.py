"""BLIP for NLVR2 against LAVIS alone, in LAVIS's environment: make test-environments."""

import checkpoints
import numpy as np
import plain
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ecoflap
from ecoflap.data import sampling
from ecoflap.errors import ModelError
from ecoflap.models.adapters.blip_nlvr import BlipImageEvalProcessor  # LAVIS's own
from helpers import layouts

pytestmark = pytest.mark.environments
SENTENCES = ["a dog sits", "the Big red cat runs on the mat!", "house (near) a tree"]
LABELS = ["True", "False", "True"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nlvr")


@pytest.fixture(scope="module")
def lavis_model(folder):
    return checkpoints.blip_nlvr(folder)


@pytest.fixture
def model(lavis_model, folder):
    return ecoflap.load(folder, device="cpu", family="blip-nlvr")


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(0)
    sizes = [(16, 16), (20, 32), (40, 18)] * 2
    made = [Image.fromarray(noise.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in sizes]
    return made[:3], made[3:]


def examples(pictures):
    rows = zip(*pictures, SENTENCES, LABELS, strict=True)
    return [dict(zip(("left", "right", "text", "label"), row, strict=True)) for row in rows]


@pytest.fixture
def batches(model, pictures):
    return sampling.batches(model.encode(examples(pictures)), 2)


def lavis_samples(pictures, chosen):
    """One example as LAVIS's own data set makes it; sentences in LAVIS's form by hand."""
    process = BlipImageEvalProcessor(image_size=16)
    texts = ["a dog sits", "the big red cat runs on the mat", "house near a tree"]
    left, right = (torch.stack([process(side[chosen])]) for side in pictures)
    labels = torch.tensor([{"False": 0, "True": 1}[LABELS[chosen]]])
    return {"image0": left, "image1": right, "text_input": [texts[chosen]], "label": labels}


def test_the_loss_is_lavis_own(model, lavis_model, pictures):
    encoded = model.encode(examples(pictures))
    losses = []
    for chosen, batch in enumerate(sampling.batches(encoded, 1)):
        with torch.no_grad():
            losses.append(lavis_model(lavis_samples(pictures, chosen))["loss"])
            assert model.loss(batch).item() == pytest.approx(losses[-1].item(), rel=1e-5)
    with torch.no_grad():
        together = model.loss(encoded).item()
    assert together == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_judgements_are_lavis_own(model, lavis_model, pictures, monkeypatch):
    monkeypatch.setattr("ecoflap.models.adapters.blip_nlvr.CHUNK", 2)
    with torch.no_grad():
        alone = [lavis_model.predict(lavis_samples(pictures, n))["predictions"] for n in range(3)]
        margins = torch.cat(alone)[:, 1] - torch.cat(alone)[:, 0]
        # So that a random model says yes to some and no to others.
        model.module.cls_head[2].bias[1] -= margins.median() + 1e-4
    found = model.judge(*pictures, SENTENCES)
    assert found == (margins > margins.median()).tolist()
    assert sum(found) == 1


def test_blocks_are_found(model):
    towers = [(block.tower, block.name.rpartition(".")[0]) for block in model.blocks]
    assert (
        towers
        == [("vision", "visual_encoder.blocks")] * 2
        + [("language", "text_encoder.encoder.layer")] * 8
    )
    names = {matrix.name.split(".", 4)[-1] for matrix in model.blocks[-1].matrices}
    assert {"crossattention.self0.key", "crossattention.output.merge_layer"} <= names


def real(name, batch):
    if name.startswith("visual") or ".self0.k" in name or ".self1.k" in name:
        return None
    return None if name.endswith((".self0.value", ".self1.value")) else batch["attention_mask"] > 0


def test_statistics_are_those_of_plain_forwards(model, batches):
    assert (batches[0]["attention_mask"] == 0).any()
    plain.check_statistics(model, batches, real)


def test_gradnorm_is_that_of_a_plain_backward(model, batches):
    plain.check_gradnorm(model, batches)


def test_sparsity_0_changes_no_byte(model, batches):
    plain.check_dense_prune(model, batches)


@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_what_is_saved_loads_again_here_and_in_lavis(batches, pictures, folder, offload, tmp_path):
    model = ecoflap.load(folder, device="cpu", offload=offload)
    plain.prune_half(model, batches)
    model.save(tmp_path)
    again = ecoflap.load(tmp_path, device="cpu")
    zeros = sum((m.module.weight == 0).sum().item() for m in again.matrices())
    assert zeros / sum(m.n_weights for m in again.matrices()) == pytest.approx(0.5, abs=0.03)
    theirs = checkpoints.blip_nlvr(tmp_path / "lavis")
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        expected = theirs(lavis_samples(pictures, 2))["loss"].item()
        assert again.loss(batches[1]).item() == pytest.approx(expected, rel=1e-5)
    assert (tmp_path / "vocab.txt").read_text() == (folder / "vocab.txt").read_text()


def test_missing_files_and_weights_are_told(lavis_model, folder, tmp_path):
    layouts.write(tmp_path / "config.json", checkpoints.NLVR)
    with pytest.raises(ModelError, match="no vocab.txt.*bert-base-uncased"):
        ecoflap.load(tmp_path, device="cpu")
    (tmp_path / "vocab.txt").write_text((folder / "vocab.txt").read_text())
    with pytest.raises(ModelError, match="0 files with weights.*one .safetensors or .pth"):
        ecoflap.load(tmp_path, device="cpu")
    weights = lavis_model.state_dict()
    del weights["cls_head.2.weight"]
    torch.save({"model": weights}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match="no weights for cls_head.2.weight .1 missing"):
        ecoflap.load(tmp_path, device="cpu")
    with pytest.raises(ModelError, match="offload 'disk'.*none, cpu"):
        ecoflap.load(folder, device="cpu", offload="disk")


def test_models_of_transformers_are_sent_elsewhere(tmp_path):
    layouts.write(tmp_path / "config.json", {"architectures": ["T5ForConditionalGeneration"]})
    with pytest.raises(ModelError, match=r"4\.26\.1 is too old.*envs/pipeline.yaml"):
        ecoflap.load(tmp_path, device="cpu")
