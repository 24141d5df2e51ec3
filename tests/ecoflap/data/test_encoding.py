"""What a model cannot take of a batch is named; what it needs is asked for before any sample."""

import pytest
import torch
from PIL import Image

from ecoflap import models
from ecoflap.data import sampling
from ecoflap.data.encoding import naming
from ecoflap.errors import DataError, ModelError
from ecoflap.evaluation import tasks
from ecoflap.finetuning import data as tuning_data
from helpers import architectures, processors, tiny

RED = Image.new("RGB", (20, 20), "red")
THIN = Image.new("RGB", (1, 3000), "red")


def sample(name, **other):
    made = {
        "id": name,
        "image": RED,
        "prompt": "what is a dog ?",
        "target": "cat",
        "caption": "cat",
    }
    return made | other


def built(name, make=None):
    """A small random model of a class with the processor that a function makes."""
    family = "image-text" if name in ("llava", "qwen2.5-vl") else name
    module = architectures.ARCHITECTURES[name].build()
    return models.ADAPTERS.get(family).Adapter(module, make and make())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("llava")
    architectures.ARCHITECTURES["llava"].build().save_pretrained(made)
    return made


@pytest.fixture
def llava():
    return built("llava", processors.llava)


def qwen():
    return built("qwen2.5-vl", lambda: processors.qwen("Qwen2_5_VL"))


def written(model):
    """Generates for examples, as an evaluation does."""
    task = {"kind": "captioning", "prompt": "what is a dog ?", "max_new_tokens": 2}
    return lambda part: tasks._answers(model, task, part)


@pytest.mark.parametrize("of", ["image", "prompt", "target"])
def test_the_sample_at_fault_is_named_with_the_reason(of):
    model = qwen() if of == "image" else built("llava", processors.llava)
    wrong = {"image": THIN, "prompt": "a <image>", "target": "<image> cat"}
    told = {"image": "aspect ratio must be smaller than 200", "prompt": "holds '<image>'"}
    samples = [sample("first"), sample("second", **{of: wrong[of]}), sample("third")]
    with pytest.raises(
        DataError, match=f"the sample second.*{told.get(of, told['prompt'])}"
    ) as one:
        naming(samples, model.encode)
    assert "\n" not in str(one.value)
    assert one.value.__cause__ is not None
    assert len(naming([samples[0], samples[2]], model.encode)["input_ids"]) == 2


def test_the_sample_is_named_by_calibration_fine_tuning_and_evaluation(monkeypatch):
    model = qwen()
    examples = [{"id": f"picture-{i}", "captions": ["a dog runs"], "image": RED} for i in range(5)]
    examples[3]["image"] = THIN
    monkeypatch.setattr("ecoflap.data.load", lambda _: examples)
    place = {"name": "x", "split": "train", "view": "captions"}
    entry = {"dataset": place, "format": "prefix-target", "samples": 5}
    task = {"kind": "captioning", "dataset": {}, "prompt": "a", "max_new_tokens": 2}
    for run in (
        lambda: sampling.collect(model, entry, 0),
        lambda: tuning_data.encode(model, [(example, entry) for example in examples], 0),
        lambda: tasks.predict(model, task),
    ):
        with pytest.raises(DataError, match="the sample picture-3 .*aspect ratio"):
            run()


@pytest.mark.parametrize("run", ["encode", "generate"])
def test_where_every_sample_fails_it_is_said(llava, run):
    llava.processor.patch_size = None
    function = llava.encode if run == "encode" else written(llava)
    with pytest.raises(
        DataError, match="sample a .and the next one.*correct the processor's files"
    ):
        naming([sample("a"), sample("b")], function)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages[0].content + 'x' }}", "TypeError"),
        # What these make of a picture was read as text before.
        ("{{ messages[0].content }}", "template.*Allowed: a template with a place for the picture"),
        ("{{ messages[0].content[-1].text }}", "template.*a place for the picture"),
        ("<image>", "template.*the whole prompt"),
    ],
)
def test_chat_templates_that_do_not_fit_are_told(llava, template, told):
    llava.processor.chat_template = template
    with pytest.raises((DataError, ModelError), match=told):
        naming([sample("a"), sample("b")], llava.encode)


def test_a_batch_that_fails_together_names_its_ends():
    def together(samples):
        if len(samples) > 1:
            raise ValueError("not of one size")

    with pytest.raises(DataError, match="one of the samples a to c .ValueError: not of one size"):
        naming([sample("a"), sample("b"), sample("c")], together)


@pytest.mark.parametrize("error", [MemoryError(), ModelError("own"), KeyboardInterrupt()])
def test_what_no_sample_is_the_reason_of_passes(error):
    def fail(_):
        raise error

    with pytest.raises(type(error)) as raised:
        naming([sample("a")], fail)
    assert raised.value is error


def test_after_an_error_of_a_gpu_nothing_more_runs_there():
    calls = []

    def fail(samples):
        calls.append(samples)
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(DataError, match="one of the samples a to b"):
        naming([sample("a"), sample("b")], fail)
    assert len(calls) == 1


def test_clip_cuts_texts_to_its_positions_where_its_tokenizer_has_no_limit():
    pictures = processors.transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=processors.SQUARE, **processors.LEVELS
    )
    tokenizer = processors.tokenizer(around="end")
    assert tokenizer.model_max_length > 1e9
    model = built("clip", lambda: processors.transformers.CLIPProcessor(pictures, tokenizer))
    positions = model.module.config.text_config.max_position_embeddings
    batch = model.encode([sample("a", caption="dog " * 500), sample("b")])
    assert batch["input_ids"].shape == (2, positions)
    with torch.no_grad():
        assert model.loss(batch).isfinite()  # an IndexError before
    assert model.text_features(["dog " * 500]).isfinite().all()


def test_texts_longer_than_the_positions_of_blip_are_refused():
    model = built("blip-captioning", processors.blip)
    limit = model.module.config.text_config.max_position_embeddings
    with pytest.raises(DataError, match=f"sample b: a text of {limit + 3} tokens.*at most {limit}"):
        naming([sample("a"), sample("b", caption="dog " * (limit + 1))], model.encode)


def test_windows_longer_than_the_positions_are_refused():
    model = tiny.llama_model()
    model.processor = processors.tokenizer()
    limit = model.module.config.max_position_embeddings
    text = "dog " * (2 * limit + 2)
    assert model.windows(text, limit).shape == (2, limit)
    with pytest.raises(DataError, match=f"windows of {limit + 1} tokens. Allowed: at most {limit}"):
        model.windows(text, limit + 1)


def test_a_model_without_what_makes_its_samples_is_refused_at_once(folder):
    def loaded(*parts):
        for part in parts:
            part.save_pretrained(folder)
        return models.load(folder, device="cpu")

    with pytest.raises(ModelError, match="has no tokenizer, without which"):
        models.check_processor(loaded())
    with pytest.raises(ModelError, match="has no image processor, without which"):
        models.check_processor(loaded(processors.tokenizer()))
    models.check_processor(loaded(processors.llava()))
    whole = processors.llava()
    whole.patch_size = None
    with pytest.raises(ModelError, match="has no patch_size"):
        models.check_processor(loaded(whole))
    whole.tokenizer.pad_token = None
    with pytest.raises(ModelError, match="has no pad_token and no patch_size"):
        models.check_processor(loaded(whole))
