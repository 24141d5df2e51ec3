"""Each family from a saved checkpoint and data in their real layout to numbers, without network.

The steps are those of the rule scripts, in one process: check, calibrate, score, allocate, prune,
store what changed, apply it to a fresh copy, evaluate.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import transformers

import ecoflap
from ecoflap import artifacts, models
from ecoflap.data import inspect, sampling
from ecoflap.errors import ModelError
from ecoflap.evaluation.suite import evaluate
from ecoflap.finetuning import training
from ecoflap.plugins import FAMILIES
from ecoflap.pruning import changes, whole_model
from helpers import architectures, layouts, processors, tiny

ALL = architectures.ARCHITECTURES
HEAD = {"rule": "test", "code": "", "config": {}}
VQA = {"kind": "vqa", "scoring": "vqa", "prompt": "what {question}", "max_new_tokens": 3}
CAPTIONS = {"kind": "captioning", "prompt": "a", "max_new_tokens": 4, "beams": 2}
RETRIEVAL = {"kind": "corpus-retrieval", "shortlist": 4}
CLASSES = {"kind": "classification", "prompts": ["a {label}", "the big {label}"]}


@dataclass(frozen=True)
class Chain:
    """What a family is calibrated on and evaluated with.

    Attributes:
        build: Makes the Hugging Face model.
        processor: Makes the processor or tokenizer.
        calibration: Data set, split, view and format.
        evaluation: Data set, split, view and task.
        metrics: What must come out.
    """

    build: Callable
    processor: Callable
    calibration: tuple
    evaluation: tuple
    metrics: set


def clip():
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=processors.SQUARE, **processors.LEVELS
    )
    return transformers.CLIPProcessor(pictures, processors.tokenizer(around="end"))


def choices(folder):
    """A task of lm-eval with two questions."""
    rows = [{"q": "what is a dog ?", "c": ["big", "small"], "a": 0}]
    rows += [{"q": "where is the cat ?", "c": ["in the house", "on the mat"], "a": 1}]
    layouts.write(folder / "rows.json", "\n".join(map(json.dumps, rows)))
    task = {
        "task": "chain_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{c}}",
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc"}],
    }
    layouts.write(folder / "chain.yaml", json.dumps(task))  # JSON is YAML
    return str(folder)


RECALLS = {f"{way}{at}" for way in ("tr", "ir") for at in (1, 5, 10)}
CHAINS = {
    "blip2": Chain(
        lambda: tiny.blip2_model().module,
        processors.blip2,
        (layouts.cc3m, "train", "captions", "prefix-target"),
        (layouts.vqav2, "val", "vqa", VQA),
        {"accuracy"},
    ),
    "image-text": Chain(
        ALL["llava"].build,
        processors.llava,
        (layouts.vqav2, "train", "vqa", "question-answer"),
        (layouts.karpathy, "test", "captions", CAPTIONS),
        {"cider"},
    ),
    "blip2-matching": Chain(
        ALL["blip2-matching"].build,
        processors.blip2_matching,
        (layouts.karpathy, "train", "captions", "image-caption"),
        (layouts.karpathy, "test", "captions", RETRIEVAL),
        RECALLS,
    ),
    "blip-vqa": Chain(
        ALL["blip-vqa"].build,
        processors.blip,
        (layouts.vqav2, "train", "vqa", "question-answer"),
        (layouts.vqav2, "val", "vqa", {**VQA, "prompt": "{question}", "beams": 2}),
        {"accuracy"},
    ),
    "blip-captioning": Chain(
        ALL["blip-captioning"].build,
        processors.blip,
        (layouts.karpathy, "train", "captions", "image-caption"),
        (layouts.karpathy, "test", "captions", CAPTIONS),
        {"cider"},
    ),
    "blip-retrieval": Chain(
        ALL["blip-retrieval"].build,
        processors.blip,
        (layouts.karpathy, "train", "captions", "image-caption"),
        (layouts.karpathy, "test", "captions", RETRIEVAL),
        RECALLS,
    ),
    "clip": Chain(
        ALL["clip"].build,
        clip,
        (layouts.imagenet, "train", "classes", "image-label"),
        (layouts.imagenet, "validation", "classes", CLASSES),
        {"accuracy"},
    ),
    "seq2seq": Chain(
        ALL["t5"].build,
        lambda: processors.tokenizer(around="end"),
        (layouts.c4, "train", "text", "text-prefix-target"),
        (choices, "", "", {"kind": "multiple-choice", "task": "chain_choices", "shots": 0}),
        {"accuracy"},
    ),
    "causal-lm": Chain(
        ALL["llama"].build,
        processors.tokenizer,
        (layouts.c4, "train", "text", "text-windows"),
        (layouts.c4, "train", "text", {"kind": "perplexity", "window": 10}),
        {"perplexity"},
    ),
}


def dataset(entry, split, view):
    found = {key: entry[key] for key in ("layout", "folder")}
    return {"name": "small", "split": split, "view": view, "files": entry["splits"][split], **found}


def loaded(family, folder):
    chain = CHAINS[family]
    torch.manual_seed(0)  # some random weights make a model that pictures hardly touch
    chain.build().save_pretrained(folder)
    chain.processor().save_pretrained(folder)
    return models.load(folder, device="cpu", family=family)


def drawn(family, folder):
    build, split, view, form = CHAINS[family].calibration
    used = dataset(build(folder), split, view)
    assert inspect.check(used)["examples"] >= 6
    further = {"image-label": {"prompt": "a {label}"}, "text-windows": {"window": 8}}
    return {"dataset": used, "format": form, "samples": 6, **further.get(form, {})}


@pytest.mark.parametrize("family", CHAINS)
def test_a_family_goes_through_the_whole_chain(family, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    chain = CHAINS[family]
    model = loaded(family, tmp_path / "dense")
    settings = drawn(family, tmp_path / "calibration")
    samples, manifest = sampling.collect(model, settings, seed=0)
    assert len({sample["id"] for sample in manifest["samples"]}) == 6
    batches = sampling.batches(samples, 3)
    scores = ecoflap.score(model, batches, estimator="gradnorm")
    plan = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.7")
    report = ecoflap.prune(model, batches, plan, criterion="wanda")
    assert report["achieved_sparsity"].between(0, 0.8).all()
    head = artifacts.header("pruned", **HEAD, dense="d")
    changes.save_changes(model, tmp_path / "changes.safetensors", head, updates_weights=False)

    fresh = models.load(tmp_path / "dense", device="cpu", family=family)
    build, split, view, task = chain.evaluation
    found = build(tmp_path / "evaluation")
    where = {"include_path": found} if build is choices else {}
    task = {**task, **(where or {"dataset": dataset(found, split, view)})}
    _, dense = evaluate(fresh, {"task": task})
    changes.apply_changes(fresh, tmp_path / "changes.safetensors", "d")
    zeros = sum(int((matrix.module.weight == 0).sum()) for matrix in fresh.matrices())
    assert zeros / plan["n_weights"].sum() == pytest.approx(0.5, abs=0.03)
    predictions, numbers = evaluate(fresh, {"task": task})
    assert {row["metric"] for row in numbers} == chain.metrics
    assert len(predictions) >= (2 if build is choices else 6)
    for row in [*dense, *numbers]:
        if row["metric"] == "ir10":  # among six pictures
            assert row["value"] is None
        else:
            assert row["value"] >= 0


@pytest.mark.parametrize("family", CHAINS)
def test_a_family_is_fine_tuned_and_distilled_where_the_registry_says_so(
    family, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, teacher = (loaded(family, tmp_path / name) for name in ("student", "teacher"))
    whole_model.prune_global_magnitude(model, "0.5")
    zeros = {matrix.name: matrix.module.weight == 0 for matrix in model.matrices()}
    recipe = {"method": "full", "data": [drawn(family, tmp_path / "data")], "epochs": 1}
    recipe |= {"learning_rate": 1e-3, "warmup": 0, "weight_decay": 0.0, "batch_size": 3}
    recipe |= {"precision": "float32"}
    curve = training.finetune(model, recipe)
    assert len(curve) == 2
    assert all((m.module.weight[zeros[m.name]] == 0).all() for m in model.matrices())
    recipe["distillation"] = 1.0
    if FAMILIES[family].logits:
        same = copy.deepcopy(teacher)
        monkeypatch.setattr(same.module, "train", lambda _=None: same.module)  # no dropout
        curve = training.finetune(same, recipe, teacher=teacher)
        assert curve["loss"].iloc[0] == pytest.approx(0, abs=1e-5)
    else:
        with pytest.raises(ModelError, match="returns no logits"):
            training.finetune(model, recipe, teacher=teacher)
