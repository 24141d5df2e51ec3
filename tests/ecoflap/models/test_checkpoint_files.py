"""Checkpoints that cannot be used are refused in a sentence that names the file."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from ecoflap.errors import ModelError
from ecoflap.models import load
from ecoflap.models.checkpoints import loading, pth, sources
from helpers.configs import ROOT

DEMO = ROOT / "workflow/resources/demo/demo-clip"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>"
JSON = ("config.json", "tokenizer.json", "processor_config.json")
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


class Other:
    """What a pickle may hold beside tensors."""


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(DEMO, tmp_path / "model")


def set_in(file, **keys):
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def pickle_instead(folder, content):
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / PICKLED)


def refused(folder, told, **options):
    with pytest.raises(ModelError, match=told) as caught:
        load(folder, device="cpu", **options)
    text = str(caught.value)
    assert "\n" not in text
    # Advice of libraries to run code that came with a file.
    assert not re.search(r"weights_only|trust_remote_code", text)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),  # transformers loads these on a CPU without a word
        ({"quant_method": "of-next-year"}, "of-next-year"),
    ],
)
def test_a_quantized_model_is_refused_by_name(folder, tmp_path, settings, named):
    set_in(folder / "config.json", quantization_config=settings)
    refused(folder, rf"is quantized \({named}, .*Load the unquantized checkpoint")
    with pytest.raises(ModelError, match="is quantized"):
        sources.fetch({"folder": str(folder)}, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_quantized_model_of_the_hub_is_refused(folder, monkeypatch):
    set_in(folder / "config.json", quantization_config={"quant_method": "awq"})
    config = AutoConfig.from_pretrained(folder)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: config)
    monkeypatch.setattr(loading, "cached_file", lambda _, name, **__: str(folder / name))
    refused("owner/name", r"is quantized \(awq")


def test_quantization_of_one_tower_or_in_a_file_of_its_own_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    part = config["text_config"] | {"quantization_config": {"quant_method": "awq"}}
    set_in(folder / "config.json", text_config=part)
    refused(folder, r"is quantized \(awq")
    set_in(folder / "config.json", text_config=config["text_config"], quantization_config=None)
    load(folder, device="cpu")
    (folder / "quantize_config.json").write_text('{"bits": 4}')
    refused(folder, "is quantized.*quantize_config.json")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("offload", ["none", "disk"])
def test_attention_of_another_package_is_replaced_by_pytorch_s(folder, key, offload):
    module = load(DEMO, device="cpu").module
    set_in(folder / "config.json", **{key: "flash_attention_2"})
    other = load(folder, device="cpu", offload=offload).module
    parts = ("text_model", "vision_model")
    for one, same in [(module, other)] + [(getattr(module, p), getattr(other, p)) for p in parts]:
        assert same.config._attn_implementation == one.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("content", [(POINTER, "git lfs pull"), (PAGE, "web page"), (b"", "empty")])
@pytest.mark.parametrize("file", [*JSON, WEIGHTS])
def test_what_is_not_the_file_itself_is_named(folder, file, content):
    (folder / file).write_bytes(content[0])
    refused(folder, f"{re.escape(file)}'.*{content[1]}")


def test_a_file_that_cannot_be_read_is_named(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/proc/self/mem")  # root too may open but not read it
    refused(folder, "config.json' cannot be read")


@pytest.mark.parametrize("content", [(POINTER, "git lfs pull"), (b"", "is empty")])
def test_a_pickled_file_that_is_none_is_named(folder, content):
    (folder / WEIGHTS).unlink()
    (folder / PICKLED).write_bytes(content[0])
    refused(folder, f"{PICKLED}'.*{content[1]}")
    with pytest.raises(ModelError, match=content[1]):
        pth.read(folder / PICKLED, "t5")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "holds a list, no mapping"),
        ("{", "is no JSON"),
        ("\ufeff{}", "byte order mark"),
        ('{"architectures": "CLIPModel"}', "architectures 'CLIPModel'. Allowed: a list"),
        ('{"architectures": [3]}', r"architectures \[3\]. Allowed: a list"),
        ('{"architectures": null, "model_type": "clip"}', "names the class None"),
        ('{"model_type": "clip", "text_config": {"hidden_size": "a"}}', "'hidden_size'"),
        ('{"model_type": "clip", "dtype": "float3"}', "float3"),
    ],
)
def test_a_config_that_is_none_is_told(folder, content, told):
    (folder / "config.json").write_text(content, encoding="utf-8")
    refused(folder, told)


@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
def test_weights_that_are_cut_short_are_named(folder, offload):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    refused(folder, f"{WEIGHTS}' is damaged or cut short", offload=offload)


def test_weights_that_an_index_names_but_are_missing_are_named(folder):
    module = load(DEMO, device="cpu").module
    (folder / WEIGHTS).unlink()
    module.save_pretrained(folder, max_shard_size="2MB")
    first, *others = sorted(folder.glob("*.safetensors"))
    first.unlink()
    told = rf"names {first.name}, which is missing \(1 of {len(others) + 1} files\)"
    refused(folder, told)
    (folder / f"{WEIGHTS}.index.json").write_text("{}")
    refused(folder, "no weight_map")
    (folder / f"{WEIGHTS}.index.json").unlink()
    (folder / f"{PICKLED}.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    refused(folder, "pytorch_model-1.bin, which is missing")


def test_an_index_that_names_a_file_elsewhere_is_refused(folder):
    shutil.copy(folder / WEIGHTS, folder.parent)
    index = {"weight_map": {"a": f"../{WEIGHTS}"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(folder, rf"names \.\./{WEIGHTS}, no file beside it")


LAYER = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("form", [torch.int8, torch.float8_e4m3fn, torch.int32])
@pytest.mark.parametrize("key", ["weight", "qweight"])
def test_weights_in_formats_that_need_a_scale_are_refused(folder, key, form):
    tensors = load_file(folder / WEIGHTS)
    tensors[f"{LAYER}.{key}"] = tensors[f"{LAYER}.weight"].to(form)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    refused(folder, rf"is quantized \({LAYER}.{key} is stored as [IF]\d")


@pytest.mark.parametrize(
    "key",
    [
        f"{LAYER}.weight_scale_inv",
        f"{LAYER}.lora_A.default",
        "text_model.encoder.layers.7.mlp.fc1.bias",
        "vision_model.encoder.layers.11.layer_norm1.bias",
    ],
)
@pytest.mark.parametrize("offload", ["none", "disk"])
def test_numbers_of_layers_that_the_model_would_leave_out_are_refused(folder, key, offload):
    save_file(
        load_file(folder / WEIGHTS) | {key: torch.ones(1)},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    told = rf"has {re.escape(key)}, for which CLIPModel has no place \(1 in all\)"
    refused(folder, told, offload=offload)


def test_heads_and_buffers_of_older_versions_are_left_out(folder):
    others = {
        "classifier.weight": torch.ones(1),
        "text_model.encoder.layers.0.scale": torch.ones(1),
    }
    save_file(load_file(folder / WEIGHTS) | others, folder / WEIGHTS, metadata={"format": "pt"})
    assert load(folder, device="cpu").blocks


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_not_taken_for_the_model_it_belongs_to(folder, alone):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if alone:
        (folder / "config.json").unlink()
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    refused(folder, "adapter_config.json' belongs to an adapter.*Merge it")


def test_a_pickled_file_with_more_than_tensors_is_not_read(folder):
    tensors = load(DEMO, device="cpu").module.state_dict()
    pickle_instead(folder, tensors)
    load(folder, device="cpu")
    refused(folder, "no safetensors files.*offload='cpu'", offload="disk")
    torch.save({**tensors, "more": Other()}, folder / PICKLED)
    told = r"holds \S*test_checkpoint_files.Other, which is no tensor; code in a file is never run"
    refused(folder, told)
    with pytest.raises(ModelError, match=told) as caught:
        pth.read(folder / PICKLED, "t5")
    assert "weights_only" not in str(caught.value)
    torch.save([1, 2], folder / PICKLED)
    refused(folder, "cannot load a model from .*TypeError")


def test_code_that_comes_with_a_checkpoint_is_never_run(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is asked"))
    places = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoProcessor": "code.Other"}
    processor = (folder / "processor_config.json").read_text()
    set_in(folder / "processor_config.json", auto_map=places, processor_class="Other")
    refused(folder, "needs Python code of its own.*never run")
    (folder / "processor_config.json").write_text(processor)
    set_in(folder / "config.json", auto_map=places)
    load(folder, device="cpu")  # transformers has the class itself
    set_in(folder / "config.json", model_type="of-its-own")
    refused(folder, "needs Python code of its own.*never run")


def test_weights_of_other_shapes_are_told(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    set_in(folder / "config.json", text_config=text | {"vocab_size": text["vocab_size"] + 1})
    refused(folder, "weights of other shapes than config.json says")


def test_a_model_that_does_not_fit_into_memory_is_not_called_damaged(folder, monkeypatch):
    def load_weights(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("transformers.CLIPModel.from_pretrained", load_weights)
    refused(folder, "does not fit into the memory here.*offload")
