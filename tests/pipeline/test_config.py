"""The shipped configuration is right, and each way to get it wrong is said before a job starts."""

import copy
from typing import get_args

import pytest
import yaml

from ecoflap.allocation import METHODS, largest_sparsity
from ecoflap.errors import ConfigError
from ecoflap.evaluation.metrics import METRICS
from ecoflap.plugins import CRITERIA, METRIC_LABELS, SCORES, TASKS
from ecoflap.schema import Entry, fields
from ecoflap_pipeline import params, points, targets
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.config.__main__ import written
from ecoflap_pipeline.config.sections import SECTIONS, Config
from helpers.configs import ROOT, merged, shipped


def checked():
    config = shipped()
    configuration.check(config, ROOT)
    return config


def change(config, path, value):
    *parents, last = path.split("/")
    for part in parents:
        config = config[part]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize("run", sorted(shipped()["experiments"]))
def test_every_experiment_that_ships_is_right(run):
    config = shipped()
    config["run"] = [run]
    configuration.check(config, ROOT)
    assert list(targets.outputs(config, run))


BAD = [
    ("run", ["demo-tabel1"], "unknown experiment 'demo-tabel1'", "Did you mean 'demo-table1'"),
    ("run", [], "at least one entry", "Experiments to make"),
    ("finetuning/demo/methd", "full", "unknown key 'methd'", "Did you mean 'method'"),
    ("finetuning/demo/method", "lora", "'lora'", "full, sparselora"),
    ("finetuning/demo/rank", 4, "demo.rank: 4", "rank is for sparselora alone"),
    ("finetuning/demo-sparselora/rank", None, "no rank", "Add the key"),
    ("finetuning/demo/epochs", 0, "at least 1", "How often"),
    ("finetuning/demo/learning_rate", 0, "more than 0", "cosine"),
    ("finetuning/demo/distillation", 1.5, "at most 1", "dense model"),
    ("finetuning/demo/precision", "float16", "'float16'", "float32, bfloat16"),
    ("finetuning/demo/data", [], "at least one entry", "learned from"),
    ("variants/ecoflap-finetuned/from", "ecoflap-gradnrm", "unknown pruned variant", "'ecoflap-g"),
    (
        "variants/ecoflap-finetuned/from",
        "ecoflap-sparselora",
        "fine-tuned itself",
        "ecoflap-gradnorm",
    ),
    (
        "variants/ecoflap-finetuned/finetune",
        "dem",
        "unknown way to fine-tune",
        "Did you mean 'demo",
    ),
    ("variants/ecoflap-finetuned/finetune", {"demo-blp2": "demo"}, "unknown model", "'demo-blip2'"),
    (
        "variants/ecoflap-finetuned/finetune",
        {"demo-clip": "demo"},
        "no way to fine-tune",
        "Add the",
    ),
    (
        "variants/ecoflap-finetuned/finetune",
        "blip-captions",
        "the format image-caption",
        "prefix-t",
    ),
    ("variants/ecoflap-finetuned/finetune", None, "no finetune", "Add the key"),
    (
        "variants/ecoflap-finetuned/criterion",
        "wanda",
        "finetuned.criterion: 'wanda'",
        "alone. Remove",
    ),
    (
        "variants/wanda/finetune",
        "demo",
        "variants.wanda: no from",
        "The variant that is pruned",
    ),
    ("experiments/demo-finetuning-curve/variants", ["wanda"], "not fine-tuned", "Remove it"),
    (
        "experiments/demo-figure6/variants",
        ["ecoflap-finetuned"],
        "no allocation to draw",
        "Remove it",
    ),
    (
        "experiments/demo-table2/variants",
        ["ecoflap-finetuned"],
        "the format prompt-caption",
        "clip",
    ),
    ("run", "demo-table1", "a list", "Experiments to make"),
    ("seeds", [], "at least one entry", "seeds"),
    ("seeds", [0, 0], "each entry once", "seeds"),
    ("seeds", [-1], "at least 0", "-1"),
    ("seeds", ["a"], "a whole number", "'a'"),
    ("device", "gpu", "'gpu'", "cpu, cuda, auto"),
    ("sedes", [1], "unknown key 'sedes'", "Did you mean 'seeds'"),
    ("data_folders", {"wikitext": "x"}, "unknown data set 'wikitext'", "'wikitext-2'"),
    ("models", {}, "missing or empty", "config/models.yaml"),
    ("models/demo-blip2/familly", "blip2", "unknown key 'familly'", "Did you mean 'family'"),
    ("models/demo-blip2/family", "blip", "'blip'", "Did you mean 'blip2'"),
    ("models/demo-blip2/family", None, "no family", "Add the key"),
    ("models/demo-blip2/family", "generic", "'generic'", "causal-lm, clip"),
    ("models/demo-blip2/blocks", {"visoin": "x"}, "unknown key 'visoin'", "Did you mean 'vision'"),
    ("models/demo-blip2/blocks", {"vision": []}, "at least one entry", "dotted name"),
    ("models/demo-blip2/blocks", {"vision": 1}, "blocks.vision: 1", "dotted name"),
    ("models/demo-blip2/source", {"folder": "x", "hub": "a/b"}, "source", "one of"),
    ("models/demo-blip2/source", {"hub": "a/b", "revision": "main"}, "source", "revision"),
    ("models/demo-blip2/calibration", "wikitext-2", "format text-windows", "prefix-target"),
    ("models/demo-blip2/calibration", "nothing", "unknown calibration", "scenes-captions"),
    ("models/a b", {}, "'a b' cannot be part of a path", "hyphens"),
    ("models/demo..blip", {}, "'demo..blip' cannot be part of a path", "hyphens"),
    ("models/a--b", {}, "'a--b'", "single hyphens"),
    ("variants/dense", {"label": "x", "criterion": "wanda"}, "taken by the workflow", "Rename"),
    ("variants/wanda/criterion", "wander", "'wander'", "Did you mean 'wanda'"),
    ("variants/wanda/criterium", "wanda", "unknown key 'criterium'", "Did you mean 'criterion'"),
    ("variants/wanda/score", "zeroth", "with a score", "Remove|Add or remove"),
    ("variants/ecoflap-zeroth/score", None, "without a score", "Add or remove"),
    ("variants/ecoflap-zeroth/score", "zero", "unknown score 'zero'", "'zeroth'"),
    ("variants/ecoflap-zeroth/max_sparsity", "0.4", "p_max.* is below 0.5", "Raise"),
    ("variants/ecoflap-zeroth/max_sparsity", 0.6, "text", "p_max"),
    ("variants/ecoflap-zeroth/max_sparsity", "1.2", "max_sparsity", "p_max"),
    ("variants/wanda/max_sparsity", "+0.1", "max_sparsity with the allocation uniform", "Remove"),
    ("variants/global-magnitude/group", "row", "group is for variants with", "Remove"),
    ("variants/wanda/calibration", "wikitext-2", "format text-windows", "prefix-target"),
    ("scores/gradnorm/epsilon", 0.1, "gradnorm.epsilon: 0.1", "for zeroth alone"),
    ("scores/zeroth/epsilon", 0, "more than 0", "Step"),
    ("scores/zeroth/samples", 0, "at least 1", "samples"),
    ("scores/zeroth/samples", 500, "wants 500 samples", "at most 128"),
    ("scores/zeroth/estimator", "second", "unknown estimator 'second'", "fisher, gradnorm"),
    ("calibrations/scenes-captions/dataset/split", "test", "evaluates", "that no task evaluates"),
    ("calibrations/scenes-captions/dataset/split", "tset", "unknown split", "Did you mean 'test'"),
    ("calibrations/scenes-captions/dataset/name", "scene", "unknown data set", "'scenes'"),
    ("calibrations/wikitext-2/window", None, "no window", "tokens per window"),
    ("calibrations/wikitext-2/format", "text", "'text'", "text-windows"),
    ("calibrations/wikitext-2/prompt", "a {label}", "a prompt", "image-label"),
    ("calibrations/scenes-image-captions/format", "image-label", "view 'captions'", "with classes"),
    (
        "calibrations/vqav2-train/dataset/split",
        "validation",
        "tasks 'vqav2', 'vqav2-blip' evaluate",
        "training or",
    ),
    ("calibrations/vqav2-train/dataset/split", "tran", "unknown split of vqav2 'tran'", "'train'"),
    ("calibrations/c4-windows-2048/dataset/view", "texts", "unknown view of c4", "Did you mean"),
    ("calibrations/dtd-train/prompt", None, "no prompt", "a photo of a {label}"),
    ("calibrations/dtd-train/prompt", "a {labl}", "prompt 'a {labl}'", "{label}"),
    ("tasks/vqav2/scoring", "vqa2", "'vqa2'", "Did you mean 'vqa'"),
    ("tasks/nocaps/scoring", "vqa", "nothing here: scoring is for vqa alone", "Remove it"),
    ("tasks/nocaps/metrics", ["spise"], "'spise'", "Did you mean 'spice'"),
    ("tasks/dtd/prompts", ["a {label}", "the {label}"], "tasks.dtd", "either prompt or prompts"),
    ("tasks/mmlu/dataset", {"name": "c4"}, "dataset is for image", "Remove it"),
    ("tasks/mmlu/shots", -1, "at least 0", "Examples in the prompt"),
    ("tasks/flickr30k/dataset/view", "vqa", "unknown view of flickr30k", "captions"),
    ("datasets/vqav2/layout", "vqas", "unknown layout 'vqas'", "Did you mean 'vqa'"),
    ("datasets/vqav2/hub", "a/b", "'revision'", "hub with revision"),
    ("datasets/scenes", {"layout": "hub", "splits": {"a": {}}}, "a built-in data set", "Rename"),
    ("tasks/scene-vqa/dataset/view", "vqas", "unknown view", "Did you mean 'vqa'"),
    ("tasks/scene-vqa/prompt", None, "no prompt", "Add the key"),
    ("tasks/scene-vqa/kind", "vqaa", "'vqaa'", "Did you mean 'vqa'"),
    ("suites/demo-generation", ["scene-vqas"], "unknown task", "Did you mean 'scene-vqa'"),
    (
        "suites/demo-generation",
        ["scene-vqa", "captoins"],
        "unknown task",
        "Did you mean 'captions'",
    ),
    ("suites/captions", ["scene-vqa"], "also the name of a task", "Rename"),
    ("experiments/demo-table1/models", [], "at least one entry", "models"),
    ("experiments/demo-table1/models", ["demo-blip"], "unknown model 'demo-blip'", "'demo-blip2'"),
    ("experiments/demo-table1/variants", ["wandas"], "unknown variant", "Did you mean 'wanda'"),
    ("experiments/demo-table1/tasks", ["vqa"], "unknown task 'vqa'", "scene-vqa"),
    ("experiments/demo-table1/tasks", ["shape"], "does not suit model", "vqa, captioning"),
    ("experiments/demo-table1/tasks", None, "no tasks", "Add the key"),
    ("experiments/demo-table1/sparsities", ["1.2"], "'1.2'", "quoted"),
    ("experiments/demo-table1/sparsities", ["1.0"], "'1.0'", "quoted"),
    ("experiments/demo-table1/sparsities", ["-0.1"], "'-0.1'", "quoted"),
    ("experiments/demo-table1/sparsities", ["0.50001"], "'0.50001'", "quoted"),
    ("experiments/demo-table1/sparsities", [0.5], "text", "quoted|0.5"),
    ("experiments/demo-table1/sparsities", ["0.0"], "above 0", "dense row"),
    ("experiments/demo-table1/sparsities", ["0.5", "0.50"], "'0.50'", "no needless zero"),
    ("seeds", [1.0], "1.0", "a whole number"),
    ("seeds", [True], "True", "a whole number"),
    ("experiments/demo-table1/seeds", {"wandas": [0]}, "unknown variant of this", "'wanda'"),
    ("experiments/demo-table1/seeds", {"wanda": []}, "at least one entry", "seeds"),
    ("experiments/demo-table1/seeds", "0", "a list, or variant to list", "seeds"),
    ("experiments/demo-table1/seeds", [], "at least one entry", "seeds"),
    ("experiments/demo-table1/like", "demo-tabel2", "experiment with all keys", "'demo-table2'"),
    (
        "experiments/demo-table1/average",
        {"shape": ["accuracy"]},
        "unknown task of this",
        "scene-vqa",
    ),
    ("experiments/demo-table1/average", {"captions": ["bleu"]}, "unknown metric 'bleu'", "cider"),
    (
        "experiments/demo-table1/published_rows",
        {"wanda": "wanda"},
        "published_columns",
        "Add the key",
    ),
    (
        "experiments/demo-table1/dense_from",
        {"demo-clip": "demo-blip2"},
        "model of this table",
        "demo-bl",
    ),
    (
        "experiments/demo-table1/dense_from",
        {"demo-blip2": "demo-clip"},
        "does not take",
        "same family",
    ),
    (
        "experiments/demo-figure4/average",
        {"captions": ["cider"]},
        "nothing here: average is for table alone",
        "Remove it",
    ),
    ("experiments/demo-ablation/x", {"wandas": 1}, "unknown variant of this figure", "'wanda'"),
    ("experiments/demo-ablation/x_label", None, "no x_label", "Add the key"),
    ("experiments/demo-ablation/x_scale", "log", "'first' on a logarithmic axis", "Correct"),
    ("experiments/demo-loss-landscape/steps", 4, "steps", "odd"),
    ("experiments/demo-loss-landscape/radius", 0, "more than 0", "norm"),
    ("models/demo-clip/like", "demo-blip", "unknown model with all keys", "'demo-blip2'"),
    ("models/demo-clip/tasks", ["shap"], "unknown task 'shap'", "'shape'"),
    ("experiments/demo-table1/kind", "tabel", "'tabel'", "Did you mean 'table'"),
    ("suites/second", ["shape"], "is in suite 'demo-zero-shot' too", "Remove it from one"),
    ("suites/demo-zero-shot", ["shape", "wikitext-2"], "does not suit model", "classification"),
    ("environments", {"lvis": "x"}, "unknown environment 'lvis'", "Did you mean 'lavis'"),
    ("environments", {"lavis": "nowhere"}, "no Python in 'nowhere'", "make setup-lavis"),
    ("environments", {"open-clip": "README.md"}, "no Python in 'README.md'", "bin/python"),
    ("data_folders", {"scenes": "tests"}, "not read from a folder", "Remove"),
    ("data_folders", {"wikitext-2": "nowhere"}, "no folder 'nowhere'", "Correct"),
    ("tasks/scene-vqa/dataset/view", "captions", "vqa with the view 'captions'", "Choose another"),
    ("tasks/shape/dataset/view", "vqa", "classification with the view", "a view with classes"),
    ("tasks/shape/prompt", "a picture", "prompt 'a picture'", "{label}"),
    ("tasks/shape/prompt", "a {lable}", "prompt 'a {lable}'", "{label}"),
    ("tasks/scene-vqa/prompt", "a {question", "prompt", "{question}"),
    ("tasks/shape/prompt", "a {}", "prompt 'a {}'", "{label}"),
    ("tasks/shape/prompt", "a {label:d}", "prompt 'a {label:d}'", "{label}"),
    ("calibrations/scenes-captions/dataset/view", "vqa", "with the view 'vqa'", "captions"),
    ("calibrations/scenes-captions/window", 12, "a window", "text-windows"),
    ("variants/wanda/ridge", "0.1", "ridge. Allowed: ridge with", "Remove ridge"),
    ("variants/sparsegpt/ridge", "0.0", "'0.0'", "above 0"),
    ("variants/sparsegpt/ridge", 0.1, "0.1", "quoted"),
    ("variants/magnitude/group", "row", "group. Allowed: group with", "Remove group"),
    ("variants/wanda/criterion", "imported", "no checkpoint", "Add the key"),
    (
        "variants/wanda/checkpoint",
        {"file": "a.pth", "format": "t5"},
        "for imported weights alone",
        "Remove",
    ),
    (
        "variants/wanda",
        {"label": "x", "criterion": "imported", "checkpoint": {"file": "a.bin", "format": "t5"}},
        "checkpoint.file: 'a.bin'",
        "path of a .pth file",
    ),
    (
        "models/demo-clip/towers_from",
        {"model": "demo-blip", "towers": ["vision"]},
        "unknown model 'demo-blip'",
        "'demo-blip2'",
    ),
    (
        "models/blip2-itm/towers_from",
        {"model": "blip2-itm-swapped", "towers": ["vision"]},
        "from elsewhere itself",
        "Name blip2",
    ),
    ("models/blip2-itm/towers_from", {"model": "x", "towers": ["text"]}, "'text'", "vision, lang"),
    ("variants/wanda/pattern", "2-4", "'2-4'", "2:4"),
    ("variants/wanda/pattern", yaml.safe_load("2:4"), "124", 'quoted N:M such as "2:4"'),
    ("variants/wanda/pattern", "1:4", "sparsity 0.5 with the pattern 1:4", "1 - N/4"),
    ("variants/ecoflap-first/pattern", "2:4", "ecoflap with the pattern 2:4", "Set pattern: n:4"),
    ("variants/wanda/pattern", "n:7", "sparsity 0.5 with the pattern n:7", "1 - N/7"),
    ("variants/ecoflap-first/allocation", "owl", "owl with the estimator first", "outliers"),
    ("variants/wanda/allocation", "owl", "owl without a score", "Add or remove"),
    (
        "variants/wanda/allocation",
        "alphaprunning",
        "'alphaprunning'",
        "Did you mean 'alphapruning'",
    ),
    ("variants/er/score", "first", "allocation er with a score", "Add or remove"),
    ("variants/lamp/score", None, "allocation lamp without a score", "Add or remove"),
    ("variants/dlp/score", "first", "dlp with the estimator first", "estimator medians"),
    ("variants/global/score", "lamp", "global with the estimator lamp", "elements-magnitude"),
    ("variants/alphapruning/score", "outliers", "with the estimator outliers", "spectrum"),
    ("variants/lamp/max_sparsity", "+0.1", "max_sparsity with the allocation lamp", "Remove"),
    ("variants/ecoflap-first/max_sparsity", "auto", "max_sparsity: 'auto'", "allocation: auto"),
    ("variants/wanda/max_sparsity", "auto", "max_sparsity: 'auto'", "allocation: auto"),
    ("variants/wanda/allocation", "auto", "no candidates", "Add the key"),
    ("variants/wanda/candidates", [{"allocation": "er"}], "allocation: 'uniform'", "Allowed: auto"),
    ("variants/auto/granularity", "matrix", "auto.granularity: 'matrix'", "Move it"),
    (
        "variants/auto/candidates",
        [{"allocation": "auto"}],
        "candidates.0.allocation: unknown",
        "ecoflap",
    ),
    ("variants/auto/candidates", [{"allocation": "dlp"}], "0: allocation dlp without", "Add or"),
    ("variants/auto/candidates", [], "at least one entry", "list"),
    ("variants/er/strength", 0.1, "strength with the allocation er", "Remove strength"),
    ("variants/owl/strength", 1.5, "1.5", "less than 1"),
    ("variants/ecoflap-inside-dlp/inside/score", "first", "inside: allocation dlp with", "medians"),
    ("variants/ecoflap-inside-dlp/inside/max_sparsity", "0.6", "'0.6'", "p + 0.1"),
    ("variants/global/reduction", "mean", "reduction with the allocation global", "Remove"),
    ("variants/wanda/granularity", "matrix", "granularity with the allocation uniform", "Remove"),
    ("variants/er/budget", "block", "'block'", "model, tower"),
    ("variants/global-magnitude/budget", "tower", "budget is for variants with", "Remove"),
    ("variants/wanda/label", "SparseGPT", "two variants with the label", "Change one label"),
    ("variants/wanda/label", "Dense", "two variants with the label 'Dense'", "Change one label"),
    ("variants/ecoflap-wanda/score", "first", "batch of one sample", "another batch_size"),
    ("experiments/scores", {}, "no kind", "Add the key"),
    ("experiments/demo-table1/published", "table-1", "'table-1'", "table1-blip2"),
    ("experiments/demo-figure4/models", ["demo-blip2", "demo-clip"], "at most 1", "One model"),
    ("experiments/demo-figure6/sparsities", ["0.5", "0.6"], "at most 1", "One sparsity"),
    (
        "experiments/demo-figure6/variants",
        ["global-magnitude"],
        "no allocation to draw",
        "Remove it",
    ),
    (
        "experiments/demo-zeroth-vs-gradnorm/variants",
        ["wanda"],
        "variants is for cost",
        "Remove it",
    ),
    ("scores/gradnorm/samples", 500, "wants 500 samples", "at most 128"),
    ("scores/gradnorm/samples", "32", "'32'", "write 32."),
    (
        "variants/mine",
        {
            "label": "S",
            "criterion": "wanda",
            "allocation": "search",
            "candidates": [{"allocation": "uniform"}],
            "pattern": "2:4",
        },
        "allocation search with the pattern 2:4",
        "unstructured",
    ),
    ("tasks/easy-vqa/max_words", 30, "max_words without a text_processor", "Add it"),
    ("tasks/easy-vqa/text_processor", "lavis", "text_processor: 'lavis'", "lavis-caption"),
    ("tasks/shape/text_processor", "lavis-caption", "vqa, corpus-retrieval alone", "Remove it"),
    ("calibrations/imagenet-train/text_processor", "lavis-caption", "with image-label", "with pre"),
    ("calibrations/vqav2-train/cut", "words", "cut with question-answer", "with prefix-target"),
    ("tasks/easy-vqa/dataset/separator", "x", "a separator with easy-vqa", "with wikitext-2"),
    ("datasets/cc3m/folder", "a\0b", "folder: 'a.x00b'", "without a NUL"),
    ("plotting/colours", ["red"], "'red'", "form"),
    ("plotting/color", "x", "unknown key 'color'", "Did you mean 'colours'"),
]


@pytest.mark.parametrize(("path", "value", "said", "remedy"), BAD)
def test_each_mistake_is_told_with_value_and_remedy(path, value, said, remedy):
    config = shipped()
    change(config, path, value)
    with pytest.raises(ConfigError, match=said) as caught:
        configuration.check(config, ROOT)
    assert any(part in str(caught.value) for part in remedy.split("|"))


def test_all_mistakes_are_told_at_once():
    config = shipped()
    change(config, "device", "tpu")
    change(config, "variants/wanda/group", "x")
    change(config, "experiments/demo-table1/models", [])
    with pytest.raises(ConfigError) as caught:
        configuration.check(config, ROOT)
    assert "3 problem(s)" in str(caught.value)


def test_defaults_are_filled_in():
    config = checked()
    assert config["models"]["demo-blip2"]["dtype"] == "float32"
    assert config["models"]["demo-blip2"]["batch_size"] == 32


def test_only_scores_of_a_loss_need_two_samples_for_a_contrastive_model():
    config = shipped()
    change(config, "scores/first/estimator", "local-wanda")
    change(config, "variants/ecoflap-wanda/score", "first")
    configuration.check(config, ROOT)


def test_checking_twice_changes_nothing():
    config = checked()
    again = copy.deepcopy(config)
    configuration.check(again, ROOT)
    assert again == config


def models_of(kind):
    """A type of a section with all models that it is made of."""
    if isinstance(kind, type) and issubclass(kind, Entry):
        yield kind
        for other in vars(kind).get("KINDS", {}).values():
            yield from models_of(other) if other is not kind else ()
        for field in kind.model_fields.values():
            yield from models_of(field.annotation)
    for part in get_args(kind):
        yield from models_of(part)


@pytest.mark.parametrize("section", [Config, *SECTIONS.values()])
def test_every_key_has_a_description(section):
    for model in models_of(section):
        for name, field in fields(model).items():
            assert field.description, f"{model.__name__}.{name}"


def test_the_tables_of_the_readme_are_those_of_the_models():
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert written(text) == text, "run python -m ecoflap_pipeline.config config/README.md"


@pytest.mark.parametrize(
    ("section", "kinds"),
    [("tasks", TASKS), ("experiments", (*targets.TABLES, *targets.FIGURES))],
)
def test_every_kind_has_a_model(section, kinds):
    assert set(SECTIONS[section].KINDS) == set(kinds)


@pytest.mark.parametrize("value", [None, True, "0.1", float("nan"), float("inf"), [0.1], {}])
def test_a_number_is_nothing_else(value):
    config = shipped()
    config["finetuning"]["demo"].update(learning_rate=value, epochs=value)
    with pytest.raises(ConfigError, match=r"(?s)2 problem.*demo.epochs: .*demo.learning_rate: "):
        configuration.check(config, ROOT)


def test_what_fits_neither_a_list_nor_a_mapping_is_told_once_and_at_its_place():
    config = shipped()
    config["experiments"]["demo-table1"]["seeds"] = {"wanda": [0, "1"], "magnitude": [-1]}
    with pytest.raises(ConfigError, match=r"(?s)2 problem.*seeds.wanda.1: '1'.*magnitude.0: -1"):
        configuration.check(config, ROOT)


def test_an_allocation_that_is_left_out_is_uniform_for_a_score_too():
    config = shipped()
    change(config, "variants/er/score", "first")
    change(config, "variants/er/allocation", None)
    with pytest.raises(ConfigError, match="(?s)1 problem.*allocation uniform with a score"):
        configuration.check(config, ROOT)


def test_mistakes_of_entries_and_between_them_are_told_together():
    config = shipped()
    change(config, "variants/er/score", "first")
    change(config, "experiments/demo-table1/models", ["demo-blip"])
    with pytest.raises(ConfigError, match="(?s)2 problem.*er with a score.*unknown model"):
        configuration.check(config, ROOT)


def test_points_make_what_ignores_the_seed_only_once():
    config = checked()
    config["seeds"] = [0, 1, 2]
    found = points.points(config, "demo-table1")
    seeds = {}
    for point in found:
        seeds.setdefault(point.variant, []).append(point.seed)
    assert seeds["global-magnitude"] == [0]
    assert seeds["magnitude"] == [0]
    assert seeds["wanda"] == seeds["ecoflap-gradnorm"] == [0, 1, 2]


def test_some_variants_of_an_experiment_can_have_more_seeds():
    config = checked()
    config["experiments"]["demo-table1"]["seeds"] = {"wanda": [0, 1, 2], "magnitude": [0, 1]}
    found = points.points(config, "demo-table1")
    assert [point.seed for point in found if point.variant == "wanda"] == [0, 1, 2]
    assert [point.seed for point in found if point.variant == "magnitude"] == [0]
    assert [point.seed for point in found if point.variant == "sparsegpt"] == [0]


def test_an_experiment_like_another_can_have_seeds_of_its_own():
    config = shipped()
    config["experiments"]["mine"] = {"like": "demo-figure4", "seeds": [3, 4]}
    configuration.check(config, ROOT)
    mine, like = points.points(config, "mine"), points.points(config, "demo-figure4")
    assert {point.seed for point in mine} == {3, 4}
    assert [point._replace(seed=0) for point in mine if point.seed == 3] == like


def test_max_sparsity_is_a_margin_or_a_number():
    assert largest_sparsity("0.5", "+0.1") == "0.6"
    assert largest_sparsity("0.5", "0.75") == "0.75"
    assert largest_sparsity("0.95") == "0.9999"


def test_what_an_allocation_reads_of_a_variant():
    config = checked()
    config["variants"]["ecoflap-inside-dlp"]["pattern"] = "n:8"
    read = params.allocate_sparsity(config, variant="ecoflap-inside-dlp", sparsity="0.6")
    (plan,) = read["allocation"]
    inside = {"method": "dlp", "score": "medians", "of": 8}
    assert plan == {
        "method": "ecoflap",
        "score": "gradnorm",
        "max_sparsity": "+0.1",
        "inside": inside,
    }
    assert points.scores_of(config["variants"]["ecoflap-inside-dlp"]) == ["gradnorm", "medians"]
    assert points.scores_of(config["variants"]["wanda"]) == []
    read = params.allocate_sparsity(config, variant="ecoflap-auto", sparsity="0.6")
    assert read["allocation"] == [{"method": "ecoflap", "score": "gradnorm"}]


def test_a_task_in_no_suite_is_its_own():
    config = checked()
    assert points.suites_of(config, ["captions", "easy-vqa", "wikitext-2"]) == [
        "demo-generation",
        "wikitext-2",
    ]
    assert list(points.tasks_of(config, "wikitext-2")) == ["wikitext-2"]


def test_local_folders_reach_the_data_set():
    config = checked()
    config["data_folders"] = {"wikitext-2": "some/folder"}
    task = points.tasks_of(config, "wikitext-2")["wikitext-2"]
    assert task["dataset"]["folder"] == "some/folder"


@pytest.mark.parametrize("name", METHODS)
def test_every_allocation_has_estimators_and_a_place_in_the_documents(name):
    assert set(METHODS[name].estimators) <= set(SCORES)
    for document in ("docs/own-model.md", "config/README.md"):
        assert f"`{name}`" in (ROOT / document).read_text()


def test_allocations_that_need_no_score_ignore_the_seed_as_far_as_their_criterion_does():
    config = checked()
    config["seeds"] = [0, 1]
    config["variants"]["er"]["criterion"] = "magnitude"
    config["experiments"]["demo-table1"]["variants"] = ["er", "alphapruning"]
    assert [point.seed for point in points.points(config, "demo-table1")] == [0, 0, 1]
    files = list(targets.scores(config, "demo-table1"))
    assert len(files) == 2
    assert all(file.endswith("/spectrum.parquet") for file in files)


PUBLISHED = {
    "published": "table1-blip2",
    "published_rows": {"wanda": "wanda"},
    "published_columns": {"easy-vqa/accuracy": "vqav2_acc"},
}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("published_rows", {"wandas": "wanda"}, "unknown variant 'wandas'.*Did you mean 'wanda'"),
        ("published_rows", {"wanda": "wandas"}, "unknown published method 'wandas'"),
        ("published_columns", {"easy-vqa/accuracy": "vqa"}, "unknown published column 'vqa'"),
        ("published_columns", {"easyvqa/accuracy": "vqav2_acc"}, "unknown task 'easyvqa'"),
        ("published_columns", {"easy-vqa/bleu": "vqav2_acc"}, "unknown metric 'bleu'"),
        ("published_where", {"pannel": "a"}, "unknown column of table1-blip2.csv 'pannel'"),
        ("published_where", {"sparsity": "0.9"}, "no row of table1-blip2.csv has"),
    ],
)
def test_what_is_wrong_with_published_numbers_is_told(key, value, said):
    config = shipped()
    config["experiments"]["demo-table1"] |= PUBLISHED
    configuration.check(copy.deepcopy(config), ROOT)
    config["experiments"]["demo-table1"][key] = value
    with pytest.raises(ConfigError, match=said):
        configuration.check(config, ROOT)


def test_a_model_like_another_has_its_keys_and_its_own():
    config = shipped()
    config["models"]["mine"] = {"like": "demo-clip", "label": "Mine", "tasks": ["shape"]}
    configuration.check(config, ROOT)
    assert config["models"]["mine"]["source"] == config["models"]["demo-clip"]["source"]
    assert config["models"]["mine"]["label"] == "Mine"
    config["experiments"]["demo-table2"]["models"] = ["mine"]
    assert points.takes(config, "demo-table2", "mine") == ["shape"]


def test_the_papers_configuration_is_right_and_every_experiment_counts_its_jobs():
    config = merged(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()))
    configuration.check(config, ROOT)
    assert len(config["run"]) == 17
    for name in config["run"]:
        counts = targets.jobs(config, name)
        assert counts["prepare_model"] >= 1, name
        assert sum(counts.values()) >= 4, name
    table1 = targets.jobs(config, "table1")
    # Seven variants on the generation model's three tasks, and on one with its towers in two other
    # models; five dense models: generation on three, those two before and after on one.
    assert table1["evaluate_model"] == 7 * (3 + 1 + 1) + 3 + 2 * 2
    assert table1["prune_model"] == 7


@pytest.mark.parametrize("label", ["Removed", "Seconds", "Sparsity", "Average"])
def test_a_task_may_not_be_called_like_a_column_of_the_table(label):
    config = shipped()
    config["tasks"]["scene-vqa"]["label"] = label
    with pytest.raises(ConfigError, match=f"the heading '{label}' is that of the table itself"):
        configuration.check(config, ROOT)


def test_no_two_columns_have_one_heading():
    config = shipped()
    config["tasks"]["scene-vqa"]["label"] = f"{config['tasks']['captions']['label']} CIDEr"
    with pytest.raises(ConfigError, match="CIDEr' is that of task '[a-z-]+' and of task"):
        configuration.check(config, ROOT)


def test_the_metrics_of_an_average_are_those_of_its_tasks():
    config = shipped()
    config["experiments"]["demo-table1"]["average"] = {"scene-vqa": ["cider"]}
    with pytest.raises(
        ConfigError, match="average.scene-vqa: unknown metric 'cider'. Allowed: accuracy"
    ):
        configuration.check(config, ROOT)


def test_places_on_an_axis_are_all_numbers_or_all_text():
    config = shipped()
    config["experiments"]["demo-ablation"]["x"] = {"ecoflap-first": 1, "ecoflap-zeroth": "a"}
    with pytest.raises(ConfigError, match="x: numbers and text"):
        configuration.check(config, ROOT)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "no module 'mine.method'"),
        ("def prune():", "line 1: expected an indented block"),
        ("UPDATES_WEIGHTS = NEEDS_INPUTS = False\n", "has no statistics, prune"),
    ],
)
def test_a_module_that_is_no_criterion_is_told_before_any_job(source, said, tmp_path, monkeypatch):
    if source is not None:
        module(monkeypatch, tmp_path, source)
    config = shipped()
    config["variants"]["wanda"]["criterion"] = "mine.method"
    with pytest.raises(ConfigError, match=f"variants.wanda.criterion: .*{said}"):
        configuration.check(config, ROOT)


def module(monkeypatch, folder, source):
    """Puts a module mine.method where Python finds it."""
    monkeypatch.syspath_prepend(folder)
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "method.py").write_text(source)


def test_a_score_of_another_package_takes_the_settings_that_it_names(tmp_path, monkeypatch):
    module(monkeypatch, tmp_path, "SETTINGS = {'power': 2.0}\n\n\ndef compute(): ...\n")
    config = shipped()
    score = {"estimator": "mine.method", "samples": 8, "batch_size": 4}
    config["scores"]["mine"] = {**score, "power": 3.0}
    configuration.check(config, ROOT)
    read = params.compute_scores(config, model="demo-clip", score="mine", calibration="x", seed="0")
    assert read["score"] == config["scores"]["mine"]
    config["scores"]["mine"] = {**score, "powr": 3.0}
    with pytest.raises(ConfigError, match="scores.mine: unknown setting .* 'powr'.*Did you mean"):
        configuration.check(config, ROOT)


@pytest.mark.parametrize("needs", ["False", "True", "bool(1)"])
def test_a_criterion_of_another_package_gets_samples_unless_it_says_no(
    needs, tmp_path, monkeypatch
):
    module(monkeypatch, tmp_path, f"NEEDS_INPUTS = {needs}\n")
    assert points.needs_samples({"criterion": "mine.method"}) is (needs != "False")


def test_which_criteria_get_samples_is_what_their_modules_say():
    for name in CRITERIA:
        assert points.needs_samples({"criterion": name}) is CRITERIA.get(name).NEEDS_INPUTS


def test_the_name_of_a_built_in_data_set_is_told_alone():
    config = shipped()
    splits = {"test": {"questions": "q.json", "annotations": "a.json", "images": "i"}}
    config["datasets"]["scenes"] = {"layout": "vqa", "folder": "x", "splits": splits}
    with pytest.raises(ConfigError, match="has 1 problem.*\n.*scenes: the name of a built-in"):
        configuration.check(config, ROOT)


@pytest.mark.parametrize(
    ("like", "said"), [(["demo-table1"], r"\['demo-table1'\]"), (None, "None")]
)
def test_an_entry_like_what_is_no_name_is_told(like, said):
    config = shipped()
    config["experiments"]["mine"] = {"like": like}
    with pytest.raises(ConfigError, match=f"experiments.mine.like: {said}. Allowed: one of demo"):
        configuration.check(config, ROOT)


def test_what_a_kind_of_task_measures_has_a_heading_and_is_computed():
    for kind, task in TASKS.items():
        assert set(task.metrics) <= set(METRIC_LABELS)
        if kind in METRICS:
            assert set(task.metrics) == set(METRICS[kind])
