"""Each adapter against plain transformers, one example at a time, on small random checkpoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import transformers

import ecoflap
from ecoflap.data import sampling
from ecoflap.errors import ModelError
from ecoflap.models import family_of
from ecoflap.models.adapters import image_text as image_text_family
from helpers import architectures, processors
from helpers.noise import randomize
from helpers.processors import PUBLISHED, pictures

ALL = architectures.ARCHITECTURES
PROMPTS = ["a dog", "what is in the house", "where"]
TARGETS = ["sits", "on the big red mat", "is a"]


@dataclass(frozen=True)
class ImageText:
    """A model, its processor, and what a prompt looks like to its processor.

    Attributes:
        architecture: Name in architectures.py.
        processor: Makes the processor.
        prompt: The text that the processor is given, spelled out.
        loads: Whether the processor loads with the packages of the tests.
    """

    architecture: str
    processor: Callable
    prompt: str
    loads: bool = True


CHAT = "USER : {image} {prompt} ASSISTANT :"
IMAGE_TEXT = {
    "llava": ImageText("llava", processors.llava, "<image>{prompt}"),
    "llava-chat": ImageText(
        "llava", lambda: processors.llava(chat=True), CHAT.replace("{image}", "<image>")
    ),
    "qwen2.5-vl": ImageText(
        "qwen2.5-vl",
        lambda: processors.qwen("Qwen2_5_VL"),
        CHAT.replace("{image}", "<|vision_start|><image><|vision_end|>"),
        loads=False,
    ),
    "qwen3-vl": ImageText(
        "qwen3-vl",
        lambda: processors.qwen("Qwen3VL"),
        CHAT.replace("{image}", "<|vision_start|><image><|vision_end|>"),
        loads=False,
    ),
    "idefics3": ImageText("idefics3", processors.idefics3, "<image>{prompt}"),
    "idefics3-split": ImageText(
        "idefics3", lambda: processors.idefics3(splits=True), "<image>{prompt}"
    ),
    "smolvlm": ImageText(
        "smolvlm", processors.smolvlm, CHAT.replace("{image}", "<image>"), loads=False
    ),
    "paligemma": ImageText("paligemma", processors.paligemma, "<image>{prompt}"),
    # Nothing in the adapter was written with the next two in mind.
    "gemma3": ImageText("gemma3", processors.gemma3, "<|vision_start|>{prompt}", loads=False),
    "internvl": ImageText("internvl", processors.internvl, "<image>{prompt}", loads=False),
    "blip2-opt": ImageText("blip2-opt", processors.blip2, "{prompt}"),
}


def saved(folder, module, processor, *, loads=True):
    """Saves a checkpoint and loads it as a user would."""
    module.save_pretrained(folder)
    if loads:
        processor.save_pretrained(folder)
    model = ecoflap.load(folder, device="cpu")
    model.processor = model.processor if loads else processor
    return model


def outspoken(build):
    """Seeded weights with which what a small model says depends on what it is asked."""
    module = randomize(build(), 0.7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:  # of norms, which would drown everything else
                parameter.fill_(0 if name.endswith("bias") else 1)
    return module


@pytest.fixture(params=IMAGE_TEXT)
def case(request):
    return IMAGE_TEXT[request.param]


@pytest.fixture
def image_text(case, tmp_path):
    module = outspoken(ALL[case.architecture].build)
    return saved(tmp_path / "dense", module, case.processor(), loads=case.loads)


def plain(case, model, picture, prompt):
    """What the processor makes of one example."""
    text = case.prompt.format(prompt=prompt)
    encoded = dict(model.processor(images=[[picture]], text=[text], return_tensors="pt"))
    encoded.pop("labels", None)
    return encoded


def whole_and_labels(case, model, picture, prompt, target):
    """One example with its target; the labels are what comes after the prompt's own tokens."""
    start = plain(case, model, picture, prompt)["input_ids"].shape[1]
    text, end = case.prompt.format(prompt=prompt), f"{target}</s>"
    if isinstance(model.processor, transformers.PaliGemmaProcessor):
        given = {"text": [text], "suffix": [target]}
    else:
        given = {"text": [f"{text} {end}"]}
    whole = dict(model.processor(images=[[picture]], **given, return_tensors="pt"))
    labels = whole["input_ids"].clone()
    labels[:, :start] = -100
    assert (labels != -100).sum() == len(target.split()) + 1
    return {**whole, "labels": labels}


def test_image_text_generates_what_transformers_does_alone(case, image_text):
    model = image_text
    ours = model.generate(pictures(), PROMPTS, max_new_tokens=5)
    alone = []
    for picture, prompt in zip(pictures(), PROMPTS, strict=True):
        inputs = plain(case, model, picture, prompt)
        tokens = model.module.generate(**inputs, max_new_tokens=5, do_sample=False, num_beams=1)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        alone += model.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    assert ours == alone
    assert len(set(ours)) > 1


def test_image_text_likelihoods_are_those_of_transformers_alone(case, image_text):
    model = image_text
    ours = model.log_likelihood(pictures(), PROMPTS, TARGETS)
    for picture, prompt, target, value in zip(pictures(), PROMPTS, TARGETS, ours, strict=True):
        inputs = whole_and_labels(case, model, picture, prompt, target)
        with torch.no_grad():
            loss = model.module(**inputs).loss.item()
        assert value == pytest.approx(-loss * (inputs["labels"] != -100).sum().item(), rel=1e-4)


def examples(**columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def question_examples():
    return examples(image=pictures(), prompt=PROMPTS, target=TARGETS)


def test_image_text_labels_are_the_target_alone(image_text):
    encoded = image_text.encode(question_examples())
    assert {len(tensor) for tensor in encoded.values()} == {3}
    for ids, labels, mask, target in zip(
        encoded["input_ids"], encoded["labels"], encoded["attention_mask"], TARGETS, strict=True
    ):
        kept = labels != -100
        assert torch.equal(labels[kept], ids[kept])
        assert image_text.processor.tokenizer.decode(labels[kept]) == f"{target} </s>"
        assert mask[kept].all()


def test_batches_of_stored_samples_have_the_losses_of_the_samples(case, image_text):
    encoded = image_text.encode(question_examples())
    packs = any(name.startswith("packed_") for name in encoded)
    sized = [picture.resize((448, 448)) if packs else picture for picture in pictures()]
    losses = []
    with torch.no_grad():
        together = image_text.loss(encoded).item()
        for picture, prompt, target in zip(sized, PROMPTS, TARGETS, strict=True):
            inputs = whole_and_labels(case, image_text, picture, prompt, target)
            losses.append((image_text.module(**inputs).loss.item(), len(target.split()) + 1))
        for batch, (loss, _) in zip(sampling.batches(encoded, 1), losses, strict=True):
            assert image_text.loss(batch).item() == pytest.approx(loss, rel=1e-4)
    mean = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    assert together == pytest.approx(mean, rel=1e-4)


def prune_and_load_again(model, encoded, folder):
    """From samples to a folder that plain from_pretrained of the same class loads."""
    batches = sampling.batches(encoded, 3)
    weights = [matrix.module.weight for matrix in model.matrices()]
    gradients = torch.autograd.grad(model.loss(batches[0]), weights)
    expected = [math.sqrt(2 / math.pi) * gradient.norm().item() for gradient in gradients]
    scores = ecoflap.score(model, batches, estimator="gradnorm")
    assert scores["score"].tolist() == pytest.approx(expected, rel=1e-4)
    plan = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.6")
    report = ecoflap.prune(model, batches, plan, criterion="wanda")
    removed = (report["achieved_sparsity"] * report["n_weights"]).sum()
    assert removed / report["n_weights"].sum() == pytest.approx(0.5, abs=0.05)
    model.save(folder)
    again = type(model.module).from_pretrained(folder, dtype=torch.float32)
    for row in report.itertuples():
        zeros = (again.get_submodule(row.name).weight == 0).float().mean().item()
        assert zeros == pytest.approx(row.achieved_sparsity), row.name


def test_image_text_models_are_pruned_and_saved(case, image_text, tmp_path):
    encoded = image_text.encode(question_examples())
    if not case.loads:
        image_text.processor = None  # its stand-ins cannot be saved
    prune_and_load_again(image_text, encoded, tmp_path / "pruned")
    if case.loads:
        again = transformers.AutoProcessor.from_pretrained(tmp_path / "pruned")
        assert type(again) is type(image_text.processor)


def test_seq2seq_has_the_loss_of_each_sample_alone_and_is_pruned(tmp_path):
    module, tokenizer = outspoken(ALL["t5"].build), processors.tokenizer(around="end")
    model = saved(tmp_path / "dense", module, tokenizer)
    encoded = model.encode(examples(prompt=PROMPTS, target=TARGETS))
    for batch, prompt, target in zip(sampling.batches(encoded, 1), PROMPTS, TARGETS, strict=True):
        labels = tokenizer(target, return_tensors="pt").input_ids
        with torch.no_grad():
            inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            loss = model.module(**inputs, labels=labels).loss
            assert model.loss(batch).item() == pytest.approx(loss.item(), rel=1e-4)
        assert batch["labels"][batch["labels"] != -100].tolist() == labels.flatten().tolist()
    prune_and_load_again(model, encoded, tmp_path / "pruned")


# The published vocabularies have [DEC] and [ENC] behind the tokenizer's words; others do not.
OTHER = {"bos_token_id": 1, "sep_token_id": 35}


@pytest.fixture(params=[PUBLISHED, OTHER], ids=["published", "other"])
def vocabulary(request):
    return request.param


def blip(folder, name, vocabulary):
    return saved(folder, outspoken(architectures.blip(name, **vocabulary)), processors.blip())


def blip_inputs(model, vocabulary, picture, text, first="[ENC]"):
    """What the processor makes of one example, with the first token of the published models."""
    inputs = dict(model.processor(images=picture, text=text, return_tensors="pt"))
    inputs.pop("token_type_ids", None)
    ids = {"[ENC]": 41, "[DEC]": 40} if vocabulary is PUBLISHED else {"[DEC]": 1}
    inputs["input_ids"][:, 0] = ids.get(first, inputs["input_ids"][0, 0])
    return inputs


def test_blip_answers_as_transformers_does_alone(vocabulary, tmp_path):
    model = blip(tmp_path / "dense", "BlipForQuestionAnswering", vocabulary)
    ours = model.generate(pictures(), PROMPTS, max_new_tokens=5)
    alone = []
    for picture, prompt in zip(pictures(), PROMPTS, strict=True):
        inputs = blip_inputs(model, vocabulary, picture, prompt)
        tokens = model.module.generate(**inputs, max_new_tokens=5, do_sample=False, num_beams=1)
        alone += model.processor.batch_decode(tokens[:, 1:], skip_special_tokens=True)
    assert ours == alone
    assert len(set(ours)) > 1


def test_blip_answers_have_the_loss_of_transformers_alone(vocabulary, tmp_path):
    model = blip(tmp_path / "dense", "BlipForQuestionAnswering", vocabulary)
    encoded = model.encode(question_examples())
    for batch, picture, prompt, target in zip(
        sampling.batches(encoded, 1), pictures(), PROMPTS, TARGETS, strict=True
    ):
        inputs = blip_inputs(model, vocabulary, picture, prompt)
        labels = blip_inputs(model, vocabulary, picture, target, "[DEC]")["input_ids"]
        with torch.no_grad():
            loss = model.module(**inputs, labels=labels).loss
            assert model.loss(batch).item() == pytest.approx(loss.item(), rel=1e-4)
        assert batch["labels"][batch["labels"] != -100].tolist() == labels.flatten().tolist()
    prune_and_load_again(model, encoded, tmp_path / "pruned")


def test_blip_describes_as_transformers_does_alone(vocabulary, tmp_path):
    model = blip(tmp_path / "dense", "BlipForConditionalGeneration", vocabulary)
    prompts = ["", "a dog in", "a cat"]
    ours = model.generate(pictures(), prompts, max_new_tokens=5)
    alone = []
    for picture, prompt in zip(pictures(), prompts, strict=True):
        inputs = blip_inputs(model, vocabulary, picture, prompt)
        start = inputs["input_ids"].shape[1] - 1
        tokens = model.module.generate(**inputs, max_new_tokens=5, do_sample=False, num_beams=1)
        alone += model.processor.batch_decode(tokens[:, start:], skip_special_tokens=True)
    assert ours == alone
    assert len(set(ours)) > 1


def test_blip_captions_have_the_loss_of_transformers_alone(vocabulary, tmp_path):
    model = blip(tmp_path / "dense", "BlipForConditionalGeneration", vocabulary)
    encoded = model.encode(examples(image=pictures(), caption=PROMPTS))
    for batch, picture, caption in zip(
        sampling.batches(encoded, 1), pictures(), PROMPTS, strict=True
    ):
        inputs = blip_inputs(model, vocabulary, picture, caption, "[DEC]")
        with torch.no_grad():
            loss = model.module(**inputs, labels=inputs["input_ids"]).loss
            assert model.loss(batch).item() == pytest.approx(loss.item(), rel=1e-4)
    prune_and_load_again(model, encoded, tmp_path / "pruned")


def retrieval(folder, name):
    if name == "blip":
        return blip(folder, "BlipForImageTextRetrieval", PUBLISHED)
    build = architectures.blip2("Blip2ForImageTextRetrieval", architectures.OPT)
    return saved(folder, outspoken(build), processors.blip2_matching())


def pair_scores(model, picture, text):
    """ITM logits [2] and ITC score of one pair, from the model's own forward."""
    with torch.no_grad():
        if isinstance(model.module, transformers.BlipForImageTextRetrieval):
            together = blip_inputs(model, PUBLISHED, picture, text)
            apart = blip_inputs(model, PUBLISHED, picture, text, "[CLS]")
            itm = model.module(**together, use_itm_head=True).itm_score[0]
            return itm, model.module(**apart, use_itm_head=False).itm_score.item()
        inputs = model.processor(images=picture, text=text, return_tensors="pt")
        itm, itc = (
            model.module(**inputs, use_image_text_matching_head=head).logits_per_image
            for head in (True, False)
        )
        return itm[0], itc.item()


@pytest.fixture(params=["blip", "blip2"])
def retriever(request, tmp_path):
    return retrieval(tmp_path / "dense", request.param)


def test_retrieval_scores_are_those_of_transformers_pair_by_pair(retriever, monkeypatch):
    monkeypatch.setattr("ecoflap.models.adapters._matching.CHUNK", 2)
    scores = {
        (row, column): pair_scores(retriever, picture, text)
        for row, picture in enumerate(pictures())
        for column, text in enumerate(PROMPTS)
    }
    similarity = retriever.similarity(pictures(), PROMPTS)
    expected = [[scores[row, column][1] for column in range(3)] for row in range(3)]
    torch.testing.assert_close(similarity, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    images = pictures()
    pairs = [(0, 0), (0, 1), (2, 1), (1, 2), (2, 2)]
    found = retriever.match([images[row] for row, _ in pairs], [PROMPTS[c] for _, c in pairs])
    assert found == pytest.approx([scores[p][0][1].item() for p in pairs], rel=1e-3)
    assert len(set(found)) == 5


def test_the_matching_loss_is_that_of_matches_and_of_the_next_caption(retriever, tmp_path):
    encoded = retriever.encode(examples(image=pictures(), caption=PROMPTS))
    losses = []
    for row, picture in enumerate(pictures()):
        for text, label in ((PROMPTS[row], 1), (PROMPTS[(row + 1) % 3], 0)):
            logits, _ = pair_scores(retriever, picture, text)
            losses.append(-logits.log_softmax(-1)[label].item())
    with torch.no_grad():
        assert retriever.loss(encoded).item() == pytest.approx(sum(losses) / 6, rel=1e-4)
    with pytest.raises(ModelError, match="one picture and its caption.*at least two"):
        retriever.loss(sampling.batches(encoded, 1)[0])
    prune_and_load_again(retriever, encoded, tmp_path / "pruned")


def test_long_captions_are_cut_as_published(retriever):
    encoded = retriever.encode(examples(image=pictures(), caption=["a dog " * 40] * 3))
    limit = 35 if isinstance(retriever.module, transformers.BlipForImageTextRetrieval) else 32
    assert encoded["input_ids"].shape == (3, limit)
    assert encoded["input_ids"][:, -1].tolist() == [35] * 3


FAMILIES = {
    "t5": "seq2seq",
    "llama": "causal-lm",
    "clip": "clip",
    "blip-vqa": "blip-vqa",
    "blip-captioning": "blip-captioning",
    "blip-retrieval": "blip-retrieval",
    "blip2-t5": "blip2",
    "blip2-opt": "image-text",
    "blip2-matching": "blip2-matching",
    "florence2": "generic",
    "whisper": "generic",
    "siglip": "generic",
    "bart": "generic",
    "mllama": "image-text",
    "internvl": "image-text",
    "gemma3": "image-text",
    "mistral": "causal-lm",
} | {case.architecture: "image-text" for case in IMAGE_TEXT.values()}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_found_by_the_class(name):
    config = ALL[name].build().config
    config.architectures = [type(ALL[name].build()).__name__]
    assert family_of(config) == FAMILIES[name]


def test_examples_without_a_processor_are_told(tmp_path):
    model = saved(tmp_path, ALL["llava"].build(), None, loads=False)
    with pytest.raises(ModelError, match="LlavaForConditionalGeneration.*without a processor"):
        model.encode(question_examples())


def test_a_class_without_blocks_is_told(tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no blocks to prune in ResNetForImageClassification"):
        ecoflap.load(tmp_path, device="cpu")


@pytest.mark.parametrize("around", ["end", "both"])
def test_an_end_that_the_tokenizer_puts_after_a_text_does_not_follow_a_prompt(around, tmp_path):
    """Expected: what plain transformers makes of the tokens without it."""
    case = IMAGE_TEXT["llava"]
    module = outspoken(ALL[case.architecture].build)
    processor = case.processor()
    processor.tokenizer = processors.tokenizer(around=around)
    model = saved(tmp_path / "dense", module, processor)
    picture = pictures()[0]
    asked = model._inputs([picture], PROMPTS[:1])["input_ids"][0]
    own = processor.tokenizer(PROMPTS[0], add_special_tokens=False)["input_ids"]
    assert asked[-len(own) :].tolist() == own
    whole = model._inputs([picture], PROMPTS[:1], TARGETS[:1])
    end = processor.tokenizer.eos_token_id
    target = [*processor.tokenizer(TARGETS[0], add_special_tokens=False)["input_ids"], end]
    labels = whole["labels"][0]
    assert labels[labels != -100].tolist() == target
    tokens = torch.tensor([[*asked.tolist(), *target]])
    with torch.no_grad():
        logits = model.module(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=whole["pixel_values"],
        ).logits[0]
    chosen = logits[len(asked) - 1 : -1].log_softmax(-1).gather(-1, tokens[0, len(asked) :, None])
    (found,) = model.log_likelihood([picture], PROMPTS[:1], TARGETS[:1])
    assert found == pytest.approx(chosen.sum().item(), abs=1e-4)


def test_a_q_former_that_reads_the_prompt_does_not_read_the_answer():
    """What InstructBLIP's processor makes of it, without a model of that size."""
    tokenizer = processors.tokenizer(around="bos")

    class Processor:
        model_input_names = ("input_ids",)
        chat_template = None
        num_query_tokens = 4

        def __init__(self):
            self.tokenizer = tokenizer

        def __call__(self, *, images, text, return_tensors, **options):
            encoded = tokenizer(text, return_tensors=return_tensors, **options)
            return {**encoded, "qformer_input_ids": encoded["input_ids"].clone()}

    model = object.__new__(image_text_family.Adapter)
    model.processor = Processor()
    asked = model._inputs([None], PROMPTS[:1])["qformer_input_ids"]
    batch = model._inputs([None], PROMPTS[:1], TARGETS[:1])
    assert torch.equal(batch["qformer_input_ids"], asked)
    assert batch["input_ids"].shape[1] > asked.shape[1]


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl"])
def test_a_model_that_finds_pictures_by_a_token_needs_its_chat_template(name, tmp_path):
    case = IMAGE_TEXT[name]
    module = ALL[case.architecture].build()
    model = saved(tmp_path / "dense", module, case.processor(), loads=False)
    model.processor.chat_template = None
    with pytest.raises(ModelError, match=r"no chat template.*chat_template\.jinja"):
        model.log_likelihood(pictures()[:1], PROMPTS[:1], TARGETS[:1])
