"""What a fine-tuned variant needs, and what may not be trained on."""

import pytest
import torch

from ecoflap.artifacts import header, write_json
from ecoflap.data.builtin import easy_vqa, scenes
from ecoflap.errors import ConfigError, DataError
from ecoflap.finetuning import data
from ecoflap.finetuning.data import evenly
from ecoflap_pipeline import params, targets
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.report import collect
from helpers.configs import ROOT, merged, shipped


def checked(further=None):
    config = merged(further or {})
    configuration.check(config, ROOT)
    return config


def refused(change, said):
    config = shipped()
    change(config)
    with pytest.raises(ConfigError, match=said):
        configuration.check(config, ROOT)


def test_a_fine_tuned_variant_is_pruned_once_as_the_one_it_comes_from():
    config = checked()
    jobs = targets.jobs(config, "demo-finetuning")
    assert jobs["prune_model"] == jobs["allocate_sparsity"] == 4  # two starts at two sparsities
    assert jobs["finetune_model"] == 8  # by two methods each
    assert jobs["evaluate_model"] == 13  # dense, and six variants at two sparsities
    pruned = set(targets.pruned(config, "demo-finetuning"))
    starts = {"ecoflap-gradnorm", "ecoflap-admm-mix-large-wide"}
    assert {path.split("/")[3] for path in pruned} == starts
    assert {path.split("/")[3] for path in targets.metrics(config, "demo-finetuning")} == {
        "dense",
        *starts,
        "ecoflap-finetuned",
        "ecoflap-sparselora",
        "admm-mix-finetuned",
        "admm-mix-sparselora",
    }


def test_a_curve_needs_what_its_models_are_pruned_from():
    jobs = targets.jobs(checked(), "demo-finetuning-curve")
    assert jobs["finetune_model"] == 8
    assert jobs["prune_model"] == 4
    assert "evaluate_model" not in jobs


@pytest.mark.parametrize("name", ["demo", "demo-sparselora", "blip-captions", "blip-vqa"])
def test_a_split_that_a_task_evaluates_is_no_data_to_train_on(name):
    def change(config):
        config["finetuning"][name]["data"][0]["dataset"] = {
            **config["tasks"]["captions"]["dataset"],
            "view": "captions",
        }

    refused(change, rf"finetuning.{name}.data.0 draws from scenes/test, which tasks .*'captions'")


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


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        # 10,400 samples in batches of 32.
        ("demo", {"warmup": 325}, r"demo: a warmup of 325 steps in a run of 325. Allowed: .* 324"),
        (
            "demo",
            {"batch_size": 10401},
            "demo: samples to fine-tune on: 10400, in batches of 10401",
        ),
        ("demo", {"learning_rate": "1e-4"}, "demo.learning_rate: '1e-4'.* write 0.0001"),
        ("demo", {"learning_rate": "2e-5"}, "demo.learning_rate: '2e-5'.* write 2.0e-05"),
        ("demo", {"learning_rate": "low"}, "demo.learning_rate: 'low'. Allowed: a number"),
        ("demo", {"rank": 8}, "demo.rank: 8. Allowed: .* sparselora alone. Remove it"),
        ("demo", {"method": "sparselora"}, "demo: no rank. Allowed: a whole number, at least 1"),
        ("demo", {"warmup": -1}, "demo.warmup: -1. Allowed: a whole number, at least 0"),
        ("demo", {"epochs": 1.5}, "demo.epochs: 1.5. Allowed: a whole number"),
    ],
)
def test_a_recipe_that_is_no_run_is_refused_before_a_job_starts(name, changes, said):
    refused(lambda config: config["finetuning"][name].update(changes), said)


@pytest.mark.parametrize(("warmup", "allowed"), [(5, True), (6, False)])
def test_the_steps_of_a_run_are_counted_from_limits_too(warmup, allowed):
    def change(config):
        recipe = config["finetuning"]["demo"]
        (part,) = recipe["data"] = recipe["data"][:1]
        part["dataset"]["limit"], part["held_out"] = 104, 4
        del part["samples"]
        recipe.update(warmup=warmup, epochs=2)  # 100 samples: three batches of 32

    if allowed:
        config = shipped()
        change(config)
        configuration.check(config, ROOT)
    else:
        refused(change, "a warmup of 6 steps in a run of 6")


@pytest.mark.parametrize(
    ("samples", "held_out", "said"),
    [
        (15937, 64, "15937 samples and 64 held-out ones of at most 16000 examples"),
        (16001, 0, "16001 samples of at most 16000 examples. Allowed: at most 16000"),
        (None, 16000, "16000 held-out samples of at most 16000 .* Allowed: at most 15999"),
    ],
)
def test_more_samples_than_the_limit_leaves_are_refused(samples, held_out, said):
    def change(config):
        part = config["finetuning"]["demo"]["data"][0]
        part.update(samples=samples, held_out=held_out)
        if samples is None:
            del part["samples"]

    # Two recipes share the list.
    refused(change, f"(?s)2 problem.*finetuning.demo.data.0: {said}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 40001}, "limit 40001 of scenes, split train. Allowed: at most 40000"),
        ({"limit": None, "samples": 39937}, "39937 samples and 64 .* another split of the data"),
        (
            {"limit": 34688, "name": "easy-vqa", "view": "vqa", "format": "question-answer"},
            "limit 34688 of easy-vqa, split train. Allowed: at most 34687",
        ),
    ],
)
def test_more_than_a_built_in_data_set_has_is_refused(changes, said):
    def change(config):
        part = config["finetuning"]["demo"]["data"][0]
        part["prompt"] = "{question}" if "view" in changes else ""
        for key, value in changes.items():
            place = part if key in ("samples", "format") else part["dataset"]
            place[key] = value
            if value is None:
                del place[key]

    # Two recipes share the list.
    refused(change, f"(?s)2 problem.*finetuning.demo.data.0: {said}")


def test_the_sizes_of_built_in_data_sets_are_what_they_hold():
    for split, size in easy_vqa.SIZES.items():
        assert len(easy_vqa.questions_of(split)[0]) == size
    for split, size in scenes.SIZES.items():
        if size <= 2000:
            assert len(scenes.load(split=split, view="captions")) == size


def test_what_is_held_out_is_learned_from_by_no_entry():
    scene = {"name": "scenes", "split": "train", "view": "captions", "limit": 60}
    one = {"dataset": scene, "format": "prefix-target", "samples": 40}
    other = {"dataset": {**scene, "limit": 90}, "format": "prompt-caption", "samples": 20}
    train, held_out = data.draw(None, [one, {**other, "held_out": 30}], 0)
    learned = {example["id"] for example, _ in train}
    assert len(held_out) == 30
    assert not learned & {example["id"] for example, _ in held_out}
    alone, _ = data.draw(None, [{**other, "held_out": 30}], 0)
    assert [e["id"] for e, _ in train[40:]] == [e["id"] for e, _ in alone]  # none is given up
    with pytest.raises(DataError, match="60 held-out samples asked for, .* not learned from"):
        data.draw(None, [one, {**other, "held_out": 60}], 0)


def test_an_empty_recipe_is_told_what_it_needs():
    refused(
        lambda config: config["finetuning"].update(empty=None),
        "finetuning.empty: None. Allowed: a mapping with method, data, epochs, learning_rate",
    )
    refused(
        lambda config: config["finetuning"].update(empty={}),
        r"(?s)5 problem\(s\).*no method. Allowed: full, .*Add the key. method: full .*no batch",
    )


def test_a_mistake_that_several_experiments_share_is_told_once():
    def change(config):
        tune_clip(config, distillation=0.5)
        config["experiments"]["again"] = config["experiments"]["demo-finetuning"]

    refused(change, r"1 problem\(s\)")


def test_more_calibration_samples_than_the_limit_are_refused():
    def change(config):
        entry = next(e for e in config["calibrations"].values() if e["format"] != "text-windows")
        entry["dataset"] = {**entry["dataset"], "limit": 9}
        entry["samples"] = 10

    refused(change, "10 samples of at most 9 examples. Allowed: at most 9")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"finetune": "demo"},
            "1 problem.*no from. Allowed: a name. Add the key. from: The variant",
        ),
        ({"from": "ecoflap-gradnorm"}, "1 problem.*no finetune"),
        (
            {"from": "ecoflap-finetuned", "finetune": "demo"},
            "1 problem.*from: 'ecoflap-finetuned' is fine-tuned itself. Allowed: .*, wanda,",
        ),
        ({"from": "again", "finetune": "demo"}, "1 problem.*from: 'again' is fine-tuned itself"),
    ],
)
def test_half_a_fine_tuned_variant_is_told_in_one_line(entry, said):
    def change(config):
        config["variants"]["again"] = {"label": "Again", **entry}

    refused(change, f"(?s){said}")


def tune_clip(config, **settings):
    """Gives demo-clip a fine-tuned variant whose recipe has these settings."""
    part = {**config["finetuning"]["demo"]["data"][0], "format": "image-caption"}
    del part["prompt"]
    recipe = {"method": "full", "data": [part], "epochs": 1, "learning_rate": 0.1}
    part["held_out"] = settings.pop("held_out", 0)
    config["models"]["demo-clip"]["batch_size"] = settings.pop("at_once", 16)
    config["finetuning"]["clip"] = {**recipe, "batch_size": 32, **settings}
    tuned = {"label": "Tuned", "from": "ecoflap-gradnorm", "finetune": "clip"}
    config["variants"]["tuned"] = tuned
    entry = config["experiments"]["demo-finetuning"]
    entry.update(models=["demo-clip"], variants=["tuned"], tasks=["shape"])


def test_distillation_needs_a_family_that_returns_logits():
    refused(
        lambda config: tune_clip(config, distillation=0.5),
        "distillation of the family clip, which returns no logits. Allowed: .* blip2,",
    )


@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 17, 33])
@pytest.mark.parametrize("key", ["batch_size", "held_out"])
def test_a_contrastive_loss_never_sees_one_sample(key, count, at_once):
    others = {"batch_size": 4 * at_once, "held_out": 0}  # whole forwards
    config = shipped()
    tune_clip(config, at_once=at_once, **{**others, key: count})
    cut = [len(part) for part in evenly(torch.arange(count), at_once)]
    assert sum(cut) == count
    assert max(cut) <= at_once
    if min(cut) == 1:
        with pytest.raises(ConfigError, match=f"{key} {count} in forwards of {at_once} has one of"):
            configuration.check(config, ROOT)
    else:
        configuration.check(config, ROOT)


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
        read = params.finetune_model(
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
