"""What `finetune` may be asked for from Python, beside the schema of the configuration."""

import copy

import pytest
import yaml

from ecoflap.errors import ConfigError, PruningError
from ecoflap.finetuning import training
from ecoflap.finetuning.settings import DEFAULTS, checked
from ecoflap_pipeline.config import check as configuration
from helpers import tiny
from helpers.configs import SCHEMAS
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
        ({"method": "lora"}, {}, ConfigError, "method 'lora'. Allowed: full, sparselora"),
        ({"distillation": 0.5}, {}, ConfigError, "without a teacher.*Pass the dense model"),
        ({}, {"teacher": "the dense model"}, ConfigError, "without distill.*pass no teacher"),
        ({}, {"batch_size": 0}, ConfigError, "batch_size=0. Allowed: a whole number from 1"),
        ({"lr": 3, "rank": 2}, {}, ConfigError, r"(?s)2 problem\(s\).*key 'lr'.*a rank with"),
        ({"data": {}}, {}, ConfigError, "no list of mappings"),
        ({"data": []}, {}, ConfigError, "empty data"),
        ({"data": [{"format": "text-windows"}]}, {}, ConfigError, "data.0: dataset None"),
        ({"data": [CAPTIONS]}, {}, ConfigError, "'image-caption'. Allowed: text-windows"),
        (
            {"data": [{**CAPTIONS, "format": "text-windows", "window": 9}]},
            {},
            ConfigError,
            "data.0: text-windows with the view 'captions'. Allowed: text",
        ),
        ({"data": [{**FULL["data"][0], "held_out": -1}]}, {}, ConfigError, "held_out -1"),
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
            "limit '40'. Allowed: a whole number from 1",
        ),
        ({}, {"seed": -1}, ConfigError, "seed=-1"),
        ({}, {"seed": None}, ConfigError, "seed=None"),
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


@pytest.mark.parametrize(
    "key",
    [*FULL, "rank", "distillation", "data.samples", "data.held_out", "data.window", "data.limit"],
)
def test_settings_are_checked_as_the_configurations_schema_does(key):
    schema = yaml.safe_load((SCHEMAS / "finetuning.schema.yaml").read_text())[
        "additionalProperties"
    ]
    validator = configuration.Validator(schema)
    model = pruned()
    verdicts = set()
    for value in (
        -1,
        0,
        0.5,
        1,
        1.0,
        1.5,
        4,
        True,
        None,
        "4",
        "full",
        "bfloat16",
        "float16",
        [],
        {},
    ):
        settings = {**(LORA if key == "rank" else FULL), key: value}
        if key == "data.limit":
            part = {**FULL["data"][0], "dataset": {**TEXTS, "limit": value}}
            settings = {**FULL, "data": [part]}
        elif key.startswith("data."):
            part = {**FULL["data"][0], key.removeprefix("data."): value}
            settings = {**FULL, "data": [part]}
        try:
            checked(model, settings, batch_size=4, seed=0)
            fits = True
        except ConfigError:
            fits = False
        assert fits == validator.is_valid(settings), value
        verdicts.add(fits)
    assert verdicts == ({False} if key == "data" else {True, False})


def test_defaults_are_those_of_the_configurations_schema():
    schema = yaml.safe_load((SCHEMAS / "finetuning.schema.yaml").read_text())
    described = schema["additionalProperties"]["properties"]
    defaults = {key: part["default"] for key, part in described.items() if "default" in part}
    assert dict(DEFAULTS) == defaults
    plain = {key: value for key, value in FULL.items() if key not in defaults}
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
