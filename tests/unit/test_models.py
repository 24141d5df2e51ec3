"""Adapters on the demo checkpoints: what is evaluated equals what transformers computes."""

from pathlib import Path

import pytest
import tiny
import torch
from ecoflap import data, models
from transformers import AutoProcessor, Blip2ForConditionalGeneration

DEMO = Path(__file__).parents[2] / "workflow" / "resources" / "demo"


@pytest.fixture(scope="module")
def blip2():
    return models.load(DEMO / "demo-blip2", device="cpu")


def retrieval():
    return data.load({"name": "scenes", "split": "validation", "view": "retrieval", "limit": 2})


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
    examples = data.load({"name": "scenes", "split": "validation", "view": "vqa", "limit": 6})
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
