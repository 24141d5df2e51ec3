"""What `finetune` may be asked for from Python, beside the schema of the configuration."""

import contextlib
import copy

import numpy as np
import pytest

from ecoflap.errors import ConfigError, PruningError
from ecoflap.finetuning import training
from ecoflap.finetuning.settings import checked
from helpers import tiny
from helpers.tuning import (
    CAPTIONS,
    FULL,
    LORA,
    TEXTS,
    drawn,  # noqa: F401, every test here draws from it
    pruned,
)


def test_a_rank_that_no_update_can_have_is_told():
    least = min(min(matrix.module.weight.shape) for matrix in pruned().matrices())
    training.finetune(pruned(), {**LORA, "rank": least})
    with pytest.raises(ConfigError, match=rf"rank {least + 1} for .* x .*Allowed: 1 to {least}\."):
        training.finetune(pruned(), {**LORA, "rank": least + 1})


@pytest.mark.parametrize(
    ("settings", "options", "error", "said"),
    [
        ({"method": "lora"}, {}, ConfigError, "method: 'lora'. Allowed: full, sparselora"),
        ({"distillation": 0.5}, {}, ConfigError, "without a teacher.*Pass the dense model"),
        ({}, {"teacher": "the dense model"}, ConfigError, "without distill.*pass no teacher"),
        (
            {},
            {"batch_size": 0},
            ConfigError,
            "arguments.batch_size: 0. Allowed: .* at least 1",
        ),
        (
            {"lr": 3, "rank": 2},
            {},
            ConfigError,
            r"(?s)2 problem.*key 'lr'.*rank is for sparselora",
        ),
        ({"data": {}}, {}, ConfigError, "data: {}. Allowed: a list"),
        ({"data": []}, {}, ConfigError, r"data: \[\]. Allowed: .*at least one entry"),
        ({"data": [{"format": "text-windows"}]}, {}, ConfigError, "data.0: no dataset"),
        ({"data": [CAPTIONS]}, {}, ConfigError, "'image-caption'. Allowed: text-windows"),
        (
            {"data": [{**CAPTIONS, "format": "text-windows", "window": 9}]},
            {},
            ConfigError,
            "data.0: text-windows with the view 'captions'. Allowed: text",
        ),
        ({"data": [{**FULL["data"][0], "held_out": -1}]}, {}, ConfigError, "held_out: -1"),
        ({"data": [{**FULL["data"][0], "hold_out": 1}]}, {}, ConfigError, "mean 'held_out'"),
        ({"data": [{**FULL["data"][0], "prompt": ""}]}, {}, ConfigError, "a prompt with text-win"),
        (
            {"data": [{k: v for k, v in FULL["data"][0].items() if k != "window"}]},
            {},
            ConfigError,
            "no window with text-windows",
        ),
        (
            {"data": [{**FULL["data"][0], "dataset": {**TEXTS, "limt": 3}}]},
            {},
            ConfigError,
            "Did you mean 'limit'",
        ),
        (
            {"data": [{**FULL["data"][0], "dataset": {**TEXTS, "limit": "40"}}]},
            {},
            ConfigError,
            "data.0.dataset.limit: '40'. Allowed: a whole number, at least 1",
        ),
        ({}, {"seed": -1}, ConfigError, "seed: -1"),
        ({}, {"seed": None}, ConfigError, "seed: None"),
        ({"warmup": 4}, {}, ConfigError, "a warmup of 4 steps in a run of 4. Allowed: at most 3"),
        ({"batch_size": 7}, {}, ConfigError, "samples to fine-tune on: 6, in batches of 7"),
        ({"learning_rate": 1e30}, {}, PruningError, "finite losses"),
    ],
)
def test_settings_that_fit_no_run_are_told(settings, options, error, said):
    with pytest.raises(error, match=said):
        training.finetune(pruned(), {**FULL, **settings}, **options)


def test_all_keys_that_are_missing_are_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)5 problem\(s\).*no method.*no data.*no batch_size"):
        training.finetune(pruned(), {})


VALUES = (-1, 0, 0.5, 1, 1.0, 1.5, 4, True, None, "4", "full", "bfloat16", "float16", [], {})
COUNT = [1, 4]
ACCEPTED = {
    "method": ["full"],
    "data": [],
    "epochs": COUNT,
    "learning_rate": [0.5, 1, 1.0, 1.5, 4],
    "warmup": [0, 1, 4],
    "weight_decay": [0, 0.5, 1, 1.0, 1.5, 4],
    "batch_size": COUNT,
    "rank": COUNT,
    "distillation": [0.5, 1, 1.0],
    "precision": ["bfloat16"],
    "data.samples": COUNT,
    "data.held_out": [0, 1, 4],
    "data.window": [4],
    "data.limit": COUNT,
}


@pytest.mark.parametrize("key", ACCEPTED)
def test_each_key_takes_what_it_means_and_nothing_else(key):
    model, accepted = pruned(), []
    for value in VALUES:
        settings = {**(LORA if key == "rank" else FULL), key: value}
        part = copy.deepcopy(FULL["data"][0])
        if "." in key:
            place = part["dataset"] if key == "data.limit" else part
            place[key.removeprefix("data.")] = value
            settings = {**FULL, "data": [part]}
        with contextlib.suppress(ConfigError):
            checked(model, settings, batch_size=4, seed=0)
            accepted.append(value)
    assert repr(accepted) == repr(ACCEPTED[key])  # 1, 1.0 and True are equal


def test_settings_of_python_may_be_tuples_and_numbers_of_numpy():
    plain = checked(pruned(), FULL, batch_size=4, seed=0)
    given = {**FULL, "data": tuple(FULL["data"]), "batch_size": np.int64(FULL["batch_size"])}
    assert checked(pruned(), given, batch_size=np.int64(4), seed=0)["epochs"] == plain["epochs"]


def test_defaults_are_filled_in():
    defaults = {"warmup": 0, "weight_decay": 0.05, "precision": "bfloat16"}
    plain = {key: value for key, value in FULL.items() if key not in defaults}
    assert checked(pruned(), plain, batch_size=4, seed=0) == {**plain, **defaults}
    curve = training.finetune(pruned(), plain)
    assert curve.equals(training.finetune(pruned(), {**plain, **defaults}))


@pytest.mark.parametrize("key", ["batch_size", "held_out"])
def test_a_contrastive_model_never_learns_from_one_sample(key):
    alone = {**FULL, "data": [CAPTIONS], "batch_size": 1}
    if key == "held_out":
        alone = {**FULL, "data": [{**CAPTIONS, "held_out": 1}]}
    with pytest.raises(ConfigError, match=f"{key} 1 in forwards of 32 has one of a single sample"):
        training.finetune(tiny.clip_model(), alone)


def test_the_history_keeps_what_the_settings_were():
    settings = copy.deepcopy(FULL)
    model = pruned()
    training.finetune(model, settings)
    settings["data"][0]["dataset"]["limit"] = 7
    assert "limit" not in model.history[-1][1]["data"][0]["dataset"]
