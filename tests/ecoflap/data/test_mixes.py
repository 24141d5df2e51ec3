"""Calibration sets of several parts: what is drawn, in which order, and what is refused."""

import copy
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecoflap import models
from ecoflap.data import mixes, sampling, settings
from ecoflap.errors import ConfigError, DataError
from ecoflap.finetuning.settings import Recipe
from ecoflap.schema import problems
from ecoflap.seeds import seed_from
from ecoflap_pipeline import params, targets
from ecoflap_pipeline.config import check as configuration
from helpers.configs import ROOT, merged

DEMO = ROOT / "workflow" / "resources" / "demo"
PLACE = {"name": "scenes", "split": "calibration"}
CAPTIONS = {"dataset": {**PLACE, "view": "captions"}, "format": "prefix-target", "samples": 12}
QUESTIONS = {
    "dataset": {**PLACE, "view": "vqa"},
    "format": "question-answer",
    "prompt": "question: {question} answer:",
    "samples": 6,
}
MIX = {"parts": [CAPTIONS, QUESTIONS]}
NAMES = (
    "scenes/calibration/captions as prefix-target",
    "scenes/calibration/vqa as question-answer",
)


@pytest.fixture(scope="module")
def model():
    return models.load(DEMO / "demo-blip2", device="cpu")


def ids(manifest, part=None):
    return [sample["id"] for sample in manifest["samples"] if part in (None, sample.get("part"))]


def test_a_part_draws_alone_what_it_draws_in_a_mix(model):
    _, manifest = sampling.collect(model, MIX, seed=3)
    for name, part in zip(NAMES, (CAPTIONS, QUESTIONS), strict=True):
        _, alone = sampling.collect(model, {"parts": [part]}, seed=3)
        assert ids(alone) == ids(manifest, name)
        assert len(set(ids(alone))) == part["samples"]


def test_the_order_of_the_parts_changes_no_byte(model):
    tensors, manifest = sampling.collect(model, MIX, seed=0)
    turned, same = sampling.collect(model, {"parts": [QUESTIONS, CAPTIONS]}, seed=0)
    assert manifest == same
    assert all(torch.equal(tensors[name], turned[name]) for name in tensors)
    assert {len(tensor) for tensor in tensors.values()} == {18}


def test_a_set_without_parts_draws_what_it_always_drew(model):
    """As in every table so far: by the seed alone."""
    pool = sampling.examples_of(model, CAPTIONS)
    expected = random.Random(seed_from("calibration", 5)).sample(pool, 12)
    _, manifest = sampling.collect(model, CAPTIONS, seed=5)
    assert ids(manifest) == [example["id"] for example in expected]
    assert all("part" not in sample for sample in manifest["samples"])


def test_the_samples_are_those_of_their_parts_in_turn(model):
    tensors, manifest = sampling.collect(model, MIX, seed=0)
    order = [sample["part"] for sample in manifest["samples"]]
    assert order == [NAMES[0], NAMES[1], NAMES[0]] * 6
    for row, sample in enumerate(manifest["samples"]):
        words = model.processor.tokenizer.decode(tensors["labels"][row].clamp(min=0))
        assert sample["target"] in words
    assert torch.isfinite(model.loss(sampling.batches(tensors, 18)[0]))


def test_the_fingerprint_tells_the_parts(model):
    samples = {"id": "1", "prompt": "a", "target": "b"}
    prints = {
        sampling._fingerprint([{**samples, **told}])
        for told in ({}, {"part": "x"}, {"part": "y"}, {"reference": "x"})
    }
    assert len(prints) == 4


def test_held_out_samples_are_new_and_in_proportion(model):
    _, manifest = sampling.collect(model, MIX, seed=0)
    _, further = sampling.held_out(model, {**MIX, "held_out": 8}, seed=0)
    assert Counter(sample["part"] for sample in further["samples"]) == {NAMES[0]: 5, NAMES[1]: 3}
    assert not set(ids(manifest)) & set(ids(further))
    assert [s["part"] for s in further["samples"][:3]].count(NAMES[0]) == 2


def test_two_formats_of_one_view_hold_out_what_neither_learns_from(model):
    whole = {**CAPTIONS, "format": "prompt-caption", "prompt": "", "samples": 900}
    mix = {"parts": [{**CAPTIONS, "samples": 900}, whole], "held_out": 400}
    taken = {sample["id"] for sample in sampling.draw(model, {**mix, "held_out": 0}, 0)[0]}
    _, further = sampling.draw(model, mix, 0)
    assert len(further) == 400
    assert not taken & {sample["id"] for sample in further}


def test_parts_of_unlike_forms_are_refused(model):
    other = {**CAPTIONS, "format": "image-caption"}
    with pytest.raises(DataError, match=r"as image-caption gives caption, image, the part"):
        sampling.collect(model, {"parts": [QUESTIONS, other]}, seed=0)


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(SIZES, st.data())
def test_every_stretch_has_its_share_of_every_part(sizes, data):
    lists = [[(number, place) for place in range(size)] for number, size in enumerate(sizes)]
    mixed = mixes.interleaved(lists)
    for number, items in enumerate(lists):
        assert [item for item in mixed if item[0] == number] == items
    start = data.draw(st.integers(0, len(mixed)))
    stretch = mixed[start : data.draw(st.integers(start, len(mixed)))]
    for number, size in enumerate(sizes):
        share = size / len(mixed)
        found = sum(item[0] == number for item in stretch)
        assert abs(found - len(stretch) * share) <= 1 + len(sizes) * share + 1e-9


@given(st.integers(0, 200), SIZES)
def test_shares_add_up_and_are_within_one_of_the_exact_ones(total, weights):
    found = mixes.shares(total, weights)
    assert sum(found) == total
    for share, weight in zip(found, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1


ENTRY = {"parts": [copy.deepcopy(CAPTIONS), copy.deepcopy(QUESTIONS)]}
WINDOWS = {
    "dataset": {"name": "wikitext-2", "split": "validation", "view": "text"},
    "format": "text-windows",
    "window": 64,
    "samples": 2,
}
BAD = [
    ({**ENTRY, "parts": []}, "parts: []", "at least one entry"),
    ({**ENTRY, "format": "prefix-target"}, "mine.format: 'prefix-target'", "Remove it"),
    ({"samples": 3, "format": "prefix-target"}, "no dataset", "Add the key"),
    ({"parts": [{**CAPTIONS, "held_out": 2}]}, "unknown key 'held_out'", "samples"),
    ({"parts": [CAPTIONS, CAPTIONS]}, "two parts of scenes/calibration/captions", "Join them"),
    ({"parts": [CAPTIONS, {**QUESTIONS, "prompt": "no"}]}, "parts.1: prompt 'no'", "{question}"),
    ({"parts": [{**CAPTIONS, "samples": 2001}]}, "parts.0: 2001 samples of at most", "Lower"),
    (
        {"parts": [CAPTIONS, {**QUESTIONS, "dataset": {**QUESTIONS["dataset"], "split": "test"}}]},
        "mine.parts.1 draws from scenes/test, which task",
        "a split that no task evaluates",
    ),
    (
        {"parts": [WINDOWS, {**WINDOWS, "dataset": {**WINDOWS["dataset"], "split": "train"}}]},
        None,
        None,
    ),
    (
        {
            "parts": [
                WINDOWS,
                {**WINDOWS, "window": 32, "dataset": {**WINDOWS["dataset"], "split": "train"}},
            ]
        },
        "parts with other windows",
        "one window",
    ),
    ({**ENTRY, "tokens": "image"}, "'image'", "all, text, drift"),
    ({**ENTRY, "targets": "own"}, "'own'", "data, generated"),
    ({**ENTRY, "max_new_tokens": 8}, "max_new_tokens with the targets of the data", "Remove it"),
    ({**WINDOWS, "targets": "generated"}, "generated with the format text-windows", "prefix-t"),
]


@pytest.mark.parametrize(("entry", "said", "remedy"), BAD)
def test_a_mistake_in_a_set_is_told_before_a_job_starts(entry, said, remedy):
    config = merged({"calibrations": {"mine": copy.deepcopy(entry)}})
    if said is None:
        configuration.check(config, ROOT)
        return
    with pytest.raises(ConfigError) as caught:
        configuration.check(config, ROOT)
    assert said in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("model_name", "entry", "said"),
    [
        ("demo-clip", ENTRY, "has the format question-answer"),
        ("demo-clip", {"tokens": "text"}, "has tokens: text. Allowed: tokens: all for the family"),
        ("smollm2-135m", {**WINDOWS, "tokens": "drift"}, "drift for blip2, image-text"),
        ("blip-captioning", {"targets": "data", "tokens": "text"}, "has tokens: text"),
    ],
)
def test_a_set_that_a_model_cannot_take_is_told(model_name, entry, said):
    config = merged({"models": {model_name: {"calibration": "mine"}}})
    own = merged({})["models"][model_name]["calibration"]
    base = entry if "format" in entry or "parts" in entry else {**config["calibrations"][own]}
    config["calibrations"]["mine"] = copy.deepcopy({**base, **entry})
    with pytest.raises(ConfigError, match=said):
        configuration.check(config, ROOT)


def test_generated_targets_are_refused_for_families_that_do_not_generate():
    pairs = {**CAPTIONS, "format": "image-caption", "targets": "generated"}
    config = merged({"calibrations": {"mine": copy.deepcopy(pairs)}})
    config["models"]["demo-clip"]["calibration"] = "mine"
    with pytest.raises(ConfigError) as caught:
        configuration.check(config, ROOT)
    assert "generated with the format image-caption" in str(caught.value)
    assert "has targets: generated. Allowed: targets: data for the family clip" in str(caught.value)


def test_tokens_that_a_whole_model_baseline_never_counts_are_told():
    config = merged({"run": ["e"], "calibrations": {"mine": copy.deepcopy(ENTRY)}})
    config["calibrations"]["mine"]["tokens"] = "text"
    config["variants"]["iterative-obd"]["calibration"] = "mine"
    config["experiments"]["e"] = {
        "kind": "table",
        "title": "E",
        "models": ["demo-blip2"],
        "variants": ["iterative-obd"],
        "sparsities": ["0.5"],
        "tasks": ["captions"],
    }
    with pytest.raises(ConfigError, match="tokens: text with iterative-obd"):
        configuration.check(config, ROOT)


def mixed_config():
    """A mix of a data set of files and a built-in one, and a task of another split of the files."""
    files = {"captions": "a.json", "split": "train"}
    coco = {"name": "mine", "split": "train", "view": "captions"}
    config = merged(
        {
            "run": ["e"],
            "datasets": {
                "mine": {"layout": "karpathy", "folder": "here", "splits": {"train": files}}
            },
            "calibrations": {
                "mix": {"parts": [{**CAPTIONS, "dataset": coco}, copy.deepcopy(QUESTIONS)]}
            },
            "variants": {
                "mine": {"label": "M", "criterion": "wanda", "calibration": "mix"},
            },
            "experiments": {
                "e": {
                    "kind": "table",
                    "title": "E",
                    "models": ["demo-blip2"],
                    "variants": ["mine"],
                    "sparsities": ["0.5"],
                    "tasks": ["captions"],
                }
            },
        }
    )
    configuration.check(config, ROOT)
    return config


def test_reports_overlaps_and_settings_follow_every_part():
    config = mixed_config()
    assert ("scenes", "calibration", "vqa") in set(targets.datasets(config, "e"))
    assert list(targets.reports(config, "e")) == ["results/datasets/mine/train/captions.json"]
    assert list(targets.overlaps(config, "e")) == ["results/overlaps/mine/train/captions.json"]
    read = params.extract_calibration(config, model="demo-blip2", calibration="mix")
    assert [part["dataset"].get("folder") for part in read["calibration"]["parts"]] == [
        "here",
        None,
    ]
    assert "held_out" not in read["calibration"]


def test_a_part_in_a_folder_that_a_task_evaluates_is_refused():
    config = mixed_config()
    coco = {"name": "mine", "split": "train", "view": "captions"}
    config["tasks"]["captions"]["dataset"] = coco
    with pytest.raises(ConfigError, match=r"calibrations\.mix\.parts\.0 draws from mine/train"):
        configuration.check(config, ROOT)


def test_what_counts_is_read_where_the_model_is_pruned_and_nowhere_else():
    config = merged({})
    configuration.check(config, ROOT)
    point = {"model": "demo-blip2", "sparsity": "0.5"}
    read = params.prune_model(config, variant="ecoflap-admm-mix-text", **point)
    assert read["pruning"]["tokens"] == "text"
    for variant in ("ecoflap-admm-mix", "wanda", "magnitude", "global-magnitude"):
        assert "tokens" not in params.prune_model(config, variant=variant, **point)["pruning"]
    drawn = [
        params.extract_calibration(config, model="demo-blip2", calibration=name)
        for name in ("scenes-mix", "scenes-mix-text", "scenes-mix-drift")
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_what_jobs_pass_on_is_right_for_the_library_too():
    config = merged({})
    configuration.check(config, ROOT)
    for name in config["calibrations"]:
        read = params.extract_calibration(config, model="demo-blip2", calibration=name)
        settings.check(read["calibration"])
    for variant in ("ecoflap-finetuned", "admm-mix-sparselora"):
        read = params.finetune_model(config, model="demo-blip2", variant=variant)
        assert not list(problems(Recipe, settings.plain(read["finetuning"])))


def test_a_mistake_of_a_python_caller_is_told_as_one_of_a_file():
    asked = {"sampels" if key == "samples" else key: value for key, value in CAPTIONS.items()}
    with pytest.raises(ConfigError, match="(?s)2 problem.*no samples.*Did you mean 'samples'"):
        sampling.collect(None, asked, seed=0)
