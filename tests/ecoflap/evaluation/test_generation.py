"""What a checkpoint says of generation does not change greedy answers, or is told."""

import pytest
import torch

from ecoflap.evaluation import suite
from ecoflap.models.adapters import _generation
from ecoflap.models.adapters.blip_vqa import Adapter as BlipVQA
from ecoflap.models.adapters.image_text import Adapter as ImageText
from helpers import architectures, processors
from helpers.noise import randomize
from helpers.processors import PUBLISHED, pictures

PROMPTS = ["a dog", "what is in the house", "where"]
# Each would change the answers of a plain `generate`, which the test makes sure of for some.
SETTINGS = {
    "repetition_penalty": 50.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 50.0,
    "min_length": 40,
    "min_new_tokens": 7,
    "max_length": 2,
    "temperature": 5.0,
    "do_sample": True,
    "num_beams": 3,
    "num_return_sequences": 2,
    "length_penalty": -5.0,
    "early_stopping": True,
    "exponential_decay_length_penalty": (1, 9.0),
    "renormalize_logits": True,
    "sequence_bias": [[[7], 100.0]],
}
TELLING = ("repetition_penalty", "no_repeat_ngram_size", "sequence_bias")


def llava():
    return ImageText(randomize(architectures.ARCHITECTURES["llava"].build(), 1), processors.llava())


def blip():
    module = randomize(architectures.blip("BlipForQuestionAnswering", **PUBLISHED)(), 1)
    return BlipVQA(module, processors.blip())


def blip2():
    module = randomize(architectures.ARCHITECTURES["blip2-opt"].build(), 1)
    return ImageText(module, processors.blip2())


MODELS = {"llava": llava, "blip": blip, "blip2": blip2}


def configs(module):
    return [p.generation_config for p in module.modules() if getattr(p, "generation_config", None)]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_settings_of_a_checkpoint_change_no_answer(build):
    model = build()
    before = model.generate(pictures(), PROMPTS, max_new_tokens=8)
    wide = model.generate(pictures(), PROMPTS, max_new_tokens=8, beams=2)
    for config in configs(model.module):
        for name, value in SETTINGS.items():
            setattr(config, name, value)
    assert model.generate(pictures(), PROMPTS, max_new_tokens=8) == before
    assert model.generate(pictures(), PROMPTS, max_new_tokens=8, beams=2) == wide
    for config in configs(model.module):
        assert {name: getattr(config, name) for name in SETTINGS} == SETTINGS
    assert model.decoding(max_new_tokens=8)["not_used"].items() >= SETTINGS.items()


@pytest.fixture(scope="module")
def module():
    return llava().module


def test_no_text_ends_before_so_many_tokens(module, monkeypatch):
    """Of a model that would end at once: its logit of the end is the highest, always."""
    end = module.generation_config.eos_token_id
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 6], [6, 7, 8, 9]])}

    def always_end(_, __, outputs):
        outputs.logits[..., end] = 1e4
        return outputs

    handle = module.register_forward_hook(always_end)
    for least in (0, 1, 5):
        search = {"min_new_tokens": least} if least else {}
        made = _generation.generate(module, inputs, max_new_tokens=8, **search)[:, 4:]
        assert (made != end).sum(1).tolist() == [least, least]
    handle.remove()
    assert _generation.told(module, max_new_tokens=8, min_new_tokens=5)["min_new_tokens"] == 5


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_alone_changes_nothing_though_it_would(module, name, monkeypatch):
    """Greedy, but for what changes beam search alone."""
    search = {"beams": 3} if name in ("length_penalty", "early_stopping") else {}
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 6], [6, 7, 8, 9]])}
    plain = _generation.generate(module, inputs, max_new_tokens=8, **search)
    monkeypatch.setattr(module.generation_config, name, SETTINGS[name])
    assert torch.equal(_generation.generate(module, inputs, max_new_tokens=8, **search), plain)
    if name in TELLING:
        assert not torch.equal(module.generate(**inputs, max_new_tokens=8, do_sample=False), plain)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_what_a_checkpoint_forbids_stays_forbidden_and_is_told(build, monkeypatch):
    model = build()
    first = model.generate(pictures(), PROMPTS, max_new_tokens=1)
    # The tokens of the first words: forbidden, none of them is said.
    gone = sorted(set(model.processor.tokenizer(" ".join(first))["input_ids"]))
    for config in configs(model.module):
        config.suppress_tokens = gone
    again = model.generate(pictures(), PROMPTS, max_new_tokens=1)
    assert all(new != old for new, old in zip(again, first, strict=True) if old)
    told = model.decoding(max_new_tokens=1)
    assert told["added"] == {"suppress_tokens": gone}
    examples = [
        {"id": str(i), "kind": "", "image": image, "question": text, "answers": ["a"]}
        for i, (image, text) in enumerate(zip(pictures(), PROMPTS, strict=True))
    ]
    monkeypatch.setattr("ecoflap.data.load", lambda _: examples)
    task = {"kind": "vqa", "prompt": "{question}", "max_new_tokens": 1, "dataset": {}}
    _, (number,) = suite.evaluate(model, {"t": task})
    assert number["note"] == f"generated with suppress_tokens {gone}"
    assert suite.decoding(model, {"t": task, "u": {"kind": "perplexity"}}) == {"t": told}


def test_decoding_tells_the_search_and_the_tokens_that_are_used():
    told = blip().decoding(max_new_tokens=4, beams=3, length_penalty=-1)
    assert told["tokens"]["eos_token_id"] == PUBLISHED["sep_token_id"]
    del told["tokens"]
    rest = {"added": {}, "not_used": {}, "do_sample": False}
    assert told == {"max_new_tokens": 4, "num_beams": 3, "length_penalty": -1, **rest}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_model_without_numbers_says_nothing(build, beams, caplog):
    model = build()
    with torch.no_grad():
        for part in model.module.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight.fill_(float("nan"))
    assert model.generate(pictures(), PROMPTS, max_new_tokens=4, beams=beams) == [""] * 3
    assert "are no numbers" in caplog.text
