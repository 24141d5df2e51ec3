"""What a fine-tuned variant needs, and what may not be trained on."""

import pytest
from configs import ROOT, SCHEMAS, merged, shipped
from ecoflap import collect, settings, targets
from ecoflap import config as configuration
from ecoflap.artifacts import header, write_json
from ecoflap.errors import ConfigError


def checked(further=None):
    config = merged(further or {})
    configuration.check(config, SCHEMAS)
    return config


def refused(change, said):
    config = shipped()
    change(config)
    with pytest.raises(ConfigError, match=said):
        configuration.check(config, SCHEMAS)


def test_a_fine_tuned_variant_is_pruned_once_as_the_one_it_comes_from():
    config = checked()
    jobs = targets.jobs(config, "finetuning-demo")
    assert jobs["prune_model"] == jobs["allocate_sparsity"] == 2
    assert jobs["finetune_model"] == 4
    assert jobs["evaluate_model"] == 7  # dense, and three variants at two sparsities
    pruned = set(targets.pruned(config, "finetuning-demo"))
    assert {path.split("/")[3] for path in pruned} == {"ecoflap-gradnorm"}
    assert {path.split("/")[3] for path in targets.metrics(config, "finetuning-demo")} == {
        "dense",
        "ecoflap-gradnorm",
        "ecoflap-finetuned",
        "ecoflap-sparselora",
    }


def test_a_curve_needs_what_its_models_are_pruned_from():
    jobs = targets.jobs(checked(), "finetuning-demo-curve")
    assert jobs["finetune_model"] == 4
    assert jobs["prune_model"] == 2
    assert "evaluate_model" not in jobs


@pytest.mark.parametrize("name", ["demo", "demo-sparselora", "blip-captions", "blip-vqa"])
def test_a_split_that_a_task_evaluates_is_no_data_to_train_on(name):
    def change(config):
        config["finetuning"][name]["data"][0]["dataset"] = {
            **config["tasks"]["captions"]["dataset"],
            "view": "captions",
        }

    refused(change, rf"finetuning.{name}.data.0 draws from scenes/test, which task 'captions'")


@pytest.mark.parametrize(
    ("number", "key", "value", "said"),
    [
        (0, "prompt", None, "data.0: no prompt with prompt-caption"),
        (1, "prompt", "a", "data.1: a prompt with prefix-target"),
        (2, "prompt", "what {query}", r"data.2: prompt 'what \{query\}'. Allowed: \{question\}"),
        (2, "window", 8, "data.2: a window"),
        (2, "format", "prefix-target", "data.2: prefix-target with the view 'vqa'"),
    ],
)
def test_each_part_of_the_data_is_checked_like_a_calibration_set(number, key, value, said):
    def change(config):
        part = config["finetuning"]["demo"]["data"][number]
        config["finetuning"]["demo"]["data"][number] = {
            name: content for name, content in {**part, key: value}.items() if content is not None
        }

    refused(change, said)


def test_the_papers_settings_are_the_published_ones():
    import yaml

    config = checked(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()))
    published = {
        "blip-captioning": (5, 1e-5),
        "blip-nlvr2": (15, 3e-6),
        "blip-retrieval-flickr30k": (12, 1e-5),
        "blip-vqa": (10, 2e-5),
    }
    for model, expected in published.items():
        read = settings.finetune_model(
            config, model=model, variant="ecoflap-zeroth-finetuned", sparsity="0.5"
        )["finetuning"]
        assert (read["epochs"], read["learning_rate"]) == expected
        assert (read["method"], read["weight_decay"]) == ("full", 0.05)
    assert targets.jobs(config, "table-blip-finetuned")["finetune_model"] == 8


def test_the_cost_of_a_fine_tuned_row_is_that_of_all_that_it_took(tmp_path):
    def write(name, **facts):
        head = header("cost", rule="r", code="c", config={})
        point = {"model": "m", "seed": 0}
        write_json(tmp_path / name, {**point, **facts}, head)
        return tmp_path / name

    at = {"sparsity": "0.5", "achieved_sparsity": 0.5, "whole_model_sparsity": 0.4}
    score = write("score", calibration="c", score="s", seconds=10.0, peak_memory_mb=30.0)
    prune = write("prune", variant="a", seconds=2.0, peak_memory_mb=20.0, **at)
    tune = write("tune", variant="b", **{"from": "a"}, seconds=100.0, peak_memory_mb=25.0, **at)
    frame = collect.costs([prune], [score], [], {"m": {"a": ("c", "s")}}, [tune])
    costs = frame.set_index("variant")
    assert costs["seconds"].to_dict() == {"a": 12.0, "b": 112.0}
    assert costs["peak_memory_mb"].to_dict() == {"a": 30.0, "b": 30.0}
