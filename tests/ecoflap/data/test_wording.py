"""Texts as published evaluations show them, on cases worked by hand from the public rules."""

import random

import pytest
import torch

from ecoflap.data import formats
from ecoflap.data.builtin import wikitext_2
from ecoflap.data.wording import worded
from ecoflap.evaluation import tasks
from ecoflap.models.adapters.causal_lm import Adapter
from helpers import tiny
from helpers.processors import pictures, tokenizer

CASES = [
    ("lavis-question", 'Is it "RED" (or #2): yes?', "is it red or 2 yes?"),
    ("lavis-question", "What's that?  ", "what's that?"),
    ("lavis-question", "...", ""),
    ("lavis-caption", "A  dog; a man's (red) hat!\n", "a dog a man's red hat"),
    ("lavis-caption", "One.Two, three.", "one two, three"),
    ("lavis-caption", " * ", ""),
]


@pytest.mark.parametrize(("processor", "text", "expected"), CASES)
def test_what_lavis_makes_of_a_text(processor, text, expected):
    assert worded(text, {"text_processor": processor}) == expected


@pytest.mark.parametrize("processor", ["lavis-question", "lavis-caption"])
def test_texts_are_cut_to_a_number_of_words(processor):
    text = " ".join(f"W{n}" for n in range(60))
    for settings, kept in (({}, 50), ({"max_words": 30}, 30), ({"max_words": 70}, 60)):
        found = worded(text, {"text_processor": processor, **settings})
        assert found.split() == [f"w{n}" for n in range(kept)]


def test_a_text_stays_as_it_is_without_a_processor():
    assert worded('A "B"!  ', {}) == 'A "B"!  '


def test_questions_and_captions_of_tasks_are_rewritten():
    class Model:
        def generate(self, images, prompts, **search):
            self.prompts = prompts
            return ["x"] * len(prompts)

        def similarity(self, images, captions):
            self.captions = captions
            return torch.zeros(len(images), len(captions))

    model, image = Model(), pictures()[0]
    task = {"kind": "vqa", "prompt": "Q: {question}", "max_new_tokens": 1}
    task |= {"text_processor": "lavis-question"}
    tasks._answers(model, task, [{"id": "1", "image": image, "question": 'A "B".'}])
    assert model.prompts == ["Q: a b"]
    rows = [{"id": "1", "image": image, "captions": ["A dog.", "A Cat."]}]
    found = list(tasks._corpus_retrieval(model, rows, {"text_processor": "lavis-caption"}))
    assert model.captions == ["a dog", "a cat"]
    assert [text for _, direction, text, *_ in found if direction == "text-to-image"] == [
        "a dog",
        "a cat",
    ]


def test_a_text_is_cut_between_characters_of_its_first_half():
    example = {"id": "1", "text": "one two three"}
    settings = {"format": "text-prefix-target", "cut": "characters"}
    cuts = set()
    for seed in range(200):
        made = formats.FORMATS["text-prefix-target"](example, random.Random(seed), settings)
        assert made["prompt"] + made["target"] == example["text"]
        cuts.add(len(made["prompt"]))
    assert cuts == set(range(len(example["text"]) // 2 + 1))


def test_samples_of_each_format_are_rewritten():
    example = {"captions": ["A Dog."], "question": "Is it?!", "answers": ["Yes."]}
    example |= {"id": "1", "image": None, "text": "One. Two."}
    settings = {"text_processor": "lavis-caption", "prompt": ""}
    made = {
        name: formats.FORMATS[name](example, random.Random(0), settings)
        for name in ("image-caption", "prompt-caption", "prefix-target", "text-prefix-target")
    }
    assert made["image-caption"]["caption"] == "a dog"
    assert made["prompt-caption"]["target"] == "a dog"
    assert (made["prefix-target"]["prompt"], made["prefix-target"]["target"]) == ("a", "dog")
    assert made["text-prefix-target"]["target"] == "two"
    settings = {"text_processor": "lavis-question", "prompt": "{question}"}
    asked = formats.FORMATS["question-answer"](example, random.Random(0), settings)
    assert (asked["prompt"], asked["target"]) == ("is it?", "Yes.")  # an answer is not rewritten


def test_the_rows_of_wikitext_are_joined_as_published(tmp_path):
    """Rows as on the hub: a line with its end, and nothing where it is blank."""
    (tmp_path / "test.txt").write_text(" = A = \n \n one\u2028two \n", encoding="utf-8")
    place = {"split": "test", "folder": str(tmp_path)}
    (plain,) = wikitext_2.load(**place)
    assert plain["text"] == " = A = \n \n one\u2028two \n"
    (joined,) = wikitext_2.load(**place, separator="\n\n")
    assert joined["text"] == " = A = \n" + "\n\n" + "" + "\n\n" + " one\u2028two \n"


def test_windows_begin_with_what_the_tokenizer_puts_there():
    model = Adapter(tiny.llama_model().module, tokenizer(around="bos"))
    plain = model.windows("a dog a dog", 2)
    begun = model.windows("a dog a dog", 2, special_tokens=True)
    first = model.processor.convert_tokens_to_ids("</s>")
    assert begun.flatten().tolist() == [first, *plain.flatten().tolist()[:3]]
