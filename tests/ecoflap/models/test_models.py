"""Adapters on the demo checkpoints: what is evaluated equals what transformers computes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Blip2ForConditionalGeneration

import ecoflap
from ecoflap import data, models
from ecoflap.data import sampling
from ecoflap.errors import DataError, ModelError, PruningError
from ecoflap.scores import matrix_table
from helpers import tiny
from helpers.configs import ROOT

DEMO = ROOT / "workflow" / "resources" / "demo"


@pytest.fixture(scope="module")
def blip2():
    return models.load(DEMO / "demo-blip2", device="cpu")


def drawn(view, limit):
    found = data.load({"name": "scenes", "split": "validation", "view": view, "limit": limit})
    return [{**example, "image": example["image"].open()} for example in found]


def retrieval():
    return drawn("retrieval", 2)


def test_log_likelihood_is_the_models_own_loss(blip2):
    for example in retrieval():
        inputs = blip2.processor(images=[example["image"]], text=[""], return_tensors="pt")
        labels = blip2.processor.tokenizer([example["caption"]], return_tensors="pt").input_ids
        with torch.no_grad():
            loss = blip2.module(**inputs, labels=labels).loss
        (value,) = blip2.log_likelihood([example["image"]], [""], [example["caption"]])
        assert value == pytest.approx(-loss.item() * labels.numel(), rel=1e-4)


def test_log_likelihood_does_not_depend_on_what_else_is_in_the_batch(blip2):
    first, second = retrieval()
    images = [first["image"], second["image"], first["image"]]
    captions = [first["caption"], second["caption"], second["caption"]]
    together = blip2.log_likelihood(images, [""] * 3, captions)
    alone = [blip2.log_likelihood([i], [""], [c])[0] for i, c in zip(images, captions, strict=True)]
    assert together == pytest.approx(alone, rel=1e-4)


def test_generation_equals_plain_transformers(blip2):
    examples = drawn("vqa", 6)
    prompts = [f"question: {e['question']} answer:" for e in examples]
    ours = blip2.generate([e["image"] for e in examples], prompts, max_new_tokens=4)
    module = Blip2ForConditionalGeneration.from_pretrained(
        DEMO / "demo-blip2", dtype=torch.float32
    ).eval()
    processor = AutoProcessor.from_pretrained(DEMO / "demo-blip2")
    for example, prompt, answer in zip(examples, prompts, ours, strict=True):
        inputs = processor(images=[example["image"]], text=[prompt], return_tensors="pt")
        tokens = module.generate(**inputs, max_new_tokens=4, do_sample=False, num_beams=1)
        assert processor.batch_decode(tokens, skip_special_tokens=True)[0].strip() == answer


def test_towers_and_blocks_of_the_demo_models(blip2):
    towers = {block.tower for block in blip2.blocks}
    assert towers == {"vision", "language", None}
    assert blip2.group_of("vision") == "matrix"
    assert blip2.group_of("language") == "row"
    clip = models.load(DEMO / "demo-clip", device="cpu")
    assert {block.tower for block in clip.blocks} == {"vision", "language"}
    assert clip.group_of("vision") == "row"


def test_saved_models_load_with_plain_transformers(blip2, tmp_path):
    blip2.save(tmp_path)
    again = Blip2ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    for name, tensor in blip2.module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    AutoProcessor.from_pretrained(tmp_path)


def test_negative_log_likelihood_is_the_loss_that_transformers_computes():
    model = tiny.llama_model()
    tokens = torch.randint(0, tiny.VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    found = model.negative_log_likelihood(tokens)
    for row, value in zip(tokens, found, strict=True):
        mean = model.module(input_ids=row[None], labels=row[None]).loss.item()
        assert value.item() == pytest.approx(8 * mean, rel=1e-5)


def damaged(folder, change):
    """A copy of demo-clip with changed tensors."""
    shutil.copytree(DEMO / "demo-clip", folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_missing_weights_are_not_made_up(tmp_path):
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    folder = damaged(tmp_path / "clip", lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=f"no weights for {name}"):
        models.load(folder, device="cpu")


def test_weights_of_another_shape_are_refused(tmp_path):
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    folder = damaged(tmp_path / "clip", lambda t: t.update({name: torch.zeros(2, 2)}))
    with pytest.raises(ModelError, match="cannot load a model"):
        models.load(folder, device="cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = damaged(tmp_path / "clip", lambda t: t["logit_scale"].fill_(float("nan")))
    with pytest.raises(ModelError, match="logit_scale .* is not finite"):
        models.load(folder, device="cpu")


def test_a_model_without_its_tokenizer_is_refused(tmp_path):
    folder = damaged(tmp_path / "clip", lambda tensors: None)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        models.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("batches", "seen"),
    [
        ([], "no calibration batch"),
        ({"input_ids": torch.ones(1, 4)}, "one batch alone"),
        ([[torch.ones(1)]], "a batch of the type list"),
        ([{"input_ids": [1, 2]}], "a batch of the type dict"),
        ([{}], "a batch of the type dict"),
        (
            [{"input_ids": torch.ones(1, 4), "attention_mask": torch.ones(1, 3)}],
            r"input_ids \[1, 4\] and attention_mask \[1, 3\]",
        ),
    ],
)
def test_batches_of_another_form_are_refused(batches, seen):
    model = tiny.llama_model()
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    for use in (ecoflap.score, lambda m, b: ecoflap.prune(m, b, plan)):
        with pytest.raises(ModelError, match=seen):
            use(model, batches)


def test_a_batch_of_padding_alone_is_refused():
    model = tiny.blip2_model()
    (batch,) = tiny.batches(model, 1)
    batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    with pytest.raises(PruningError, match="no real token"):
        ecoflap.prune(model, [batch], plan)


def test_a_plan_of_another_size_or_without_sparsities_is_refused():
    model = tiny.llama_model()
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    with pytest.raises(PruningError, match="of another model"):
        ecoflap.prune(model, tiny.batches(model), plan.assign(n_weights=plan["n_weights"] * 4))
    with pytest.raises(PruningError, match="without the column 'sparsity'"):
        ecoflap.prune(model, tiny.batches(model), matrix_table(model))


@pytest.mark.parametrize("numbers", [{"batch_size": 0}, {"batch_size": 1, "limit": 0}])
def test_batches_of_nothing_are_refused(numbers):
    with pytest.raises(DataError, match="at least 1"):
        sampling.batches({"x": torch.ones(4)}, **numbers)
