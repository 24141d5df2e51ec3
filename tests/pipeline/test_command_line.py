"""What --config says is read as the same text in a file would be, or refused."""

import pytest
from snakemake.cli import parse_config
from snakemake.utils import update_config

from ecoflap.errors import ConfigError
from ecoflap_pipeline.config import check as configuration
from helpers.configs import ROOT, shipped


def given(argument):
    """The configuration with an argument of --config, as Snakemake merges and we check it."""
    config, read = shipped(), parse_config([argument])
    update_config(config, read)
    configuration.check(config, ROOT, given=read)
    return config


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("seeds=[0,1]", ["seeds"], [0, 1]),
        ("device=cuda", ["device"], "cuda"),
        ("run=[demo-table1]", ["run"], ["demo-table1"]),
        ('scores={"gradnorm": {"samples": 16}}', ["scores", "gradnorm", "samples"], 16),
        ('scores={"zeroth": {"epsilon": 0.01}}', ["scores", "zeroth", "epsilon"], 0.01),
        # A sparsity is part of a path: text, whether quoted or not.
        (
            'experiments={"demo-table1": {"sparsities": [0.5]}}',
            ["experiments", "demo-table1", "sparsities"],
            ["0.5"],
        ),
        (
            'experiments={"demo-table1": {"seeds": {"wanda": [3]}}}',
            ["experiments", "demo-table1", "seeds", "wanda"],
            [3],
        ),
    ],
)
def test_values_are_what_a_file_would_give(argument, path, value):
    found = given(argument)
    for key in path:
        found = found[key]
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("seeds=[0,00]", r"config.seeds: \[0, 0\]. Allowed: .*each entry once"),
        ("seeds=[1.0]", "config.seeds.0: '1.0'. Allowed: a whole number"),
        ("seeds=[true]", "config.seeds.0: 'true'. Allowed: a whole number"),
        ("seeds=[-1]", "config.seeds.0: -1. Allowed: a whole number, at least 0"),
        ("seeds=0", "config.seeds: 0. Allowed: a list"),
        ("seeds=null", "config.seeds: 'null'. Allowed: a list"),
        ("seeds=[0", r"config.seeds: '\[0'. Allowed: a list"),
        ("device=", "config.device: None. Allowed: cpu, cuda, auto"),
        ("run=demo-table1", "config.run: 'demo-table1'. Allowed: a list"),
        ('scores={"zeroth": {"epsilon": 1e-4}}', "scores.zeroth.epsilon.*write 0.0001"),
        ("scores={gradnorm: 3}", "scores.gradnorm: '3'. Allowed: a mapping"),
    ],
)
def test_what_cannot_be_meant_is_refused(argument, told):
    with pytest.raises(ConfigError, match=told):
        given(argument)


def test_a_number_in_quotes_is_text_in_a_file():
    config = {**shipped(), "seeds": ["0"]}
    with pytest.raises(ConfigError, match="config.seeds.0: '0'. Allowed: a whole number"):
        configuration.check(config, ROOT)
