"""Mistakes in a run's own file, merged with the files that ship as Snakemake merges them."""

import copy
import os
import subprocess
import sys

import pytest

from ecoflap.errors import ConfigError
from ecoflap_pipeline.config import check as configuration
from helpers.configs import ROOT, merged
from helpers.projects import SMALL

VQA_FILES = {"questions": "q.json", "annotations": "a.json", "images": "{image_id}"}
# place in the configuration, value (None: the key is taken out), what is said
CONFIGS = [
    ("sedes", [1], "unknown key 'sedes'", "Did you mean 'seeds'"),
    ("models/demo-clip/familly", "clip", "unknown key 'familly'", "Did you mean 'family'"),
    ("datasets/vqav2/layuot", "vqa", "unknown key 'layuot'", "Did you mean 'layout'"),
    ("calibrations/scenes-image-captions/sampels", 1, "unknown key 'sampels'", "'samples'"),
    ("scores/small/estimater", "first", "unknown key 'estimater'", "Did you mean 'estimator'"),
    ("variants/wanda/criterium", "ria", "unknown key 'criterium'", "Did you mean 'criterion'"),
    ("tasks/shape/promt", "a {label}", "unknown key 'promt'", "Did you mean 'prompt'"),
    ("experiments/small-table/titel", "Small", "unknown key 'titel'", "Did you mean 'title'"),
    ("plotting/colors", ["red"], "unknown key 'colors'", "Did you mean 'colours'"),
    ("suites/demo-zero-shot", ["shapes"], "unknown task 'shapes'", "Did you mean 'shape'"),
    ("seeds", "0", "seeds: '0'", "a list"),
    ("seeds", [0, 0], "seeds", "each entry once"),
    ("seeds", [], "seeds", "at least one entry"),
    ("device", "gpu", "'gpu'", "cpu, cuda, auto"),
    ("run", ["small-tabel"], "unknown experiment 'small-tabel'", "Did you mean 'small-table'"),
    ("run", [], "run", "at least one entry"),
    ("calibrations/scenes-image-captions/samples", "32", "'32'", "a whole number"),
    ("calibrations/scenes-image-captions/dataset/split", "test", "evaluates", "no task evaluates"),
    ("calibrations/scenes-image-captions/dataset/name", "scene", "unknown data set", "'scenes'"),
    ("experiments/small-table/sparsities", ["1.0"], "'1.0'", "quoted"),
    ("experiments/small-table/sparsities", ["-0.1"], "'-0.1'", "quoted"),
    ("experiments/small-table/sparsities", ["0.50001"], "'0.50001'", "quoted"),
    ("experiments/small-table/sparsities", [0.5], "0.5", "text"),
    ("experiments/small-table/sparsities", [], "sparsities", "at least one entry"),
    ("experiments/small-table/sparsities", ["0.5\n"], r"'0.5\n'", "a quoted fraction"),
    ("models/demo-clip/label", " ", "' '", "text of at least 1 character"),
    ("experiments/small-table/title", "\t", r"'\t'", "text of at least 1 character"),
    ("datasets/vqav2/splits/..", VQA_FILES, "the name '..'", "letters, digits"),
    ("experiments/small-table/models", [], "models", "at least one entry"),
    ("experiments/small-table/models", None, "no models", "Add the key"),
    ("experiments/small-table/models", ["demo-clp"], "unknown model", "Did you mean 'demo-clip'"),
    ("experiments/small-table/variants", ["wnada"], "unknown variant", "Did you mean 'wanda'"),
    ("experiments/small-table/variants", ["wanda", "wanda"], "variants", "each entry once"),
    ("experiments/small-table/tasks", ["scene-vqa"], "does not suit model", "Choose another task"),
    ("experiments/small-table/kind", "tabel", "'tabel'", "Did you mean 'table'"),
    ("experiments/verify", {"kind": "table"}, "'verify'", "taken by the workflow"),
    ("variants/small-ecoflap/max_sparsity", "0.4", "p_max", "Raise"),
    ("variants/small-ecoflap/score", "smal", "unknown score 'smal'", "Did you mean 'small'"),
    ("variants/small-ecoflap/allocation", "ecoflop", "'ecoflop'", "Did you mean 'ecoflap'"),
    ("variants/wanda/criterion", "wandas", "'wandas'", "Did you mean 'wanda'"),
    ("variants/wanda/pattern", "4:2", "the pattern 4:2 removes nothing", "N below 2"),
    ("variants/a b", {"label": "x", "criterion": "wanda"}, "'a b' cannot be part of", "hyphens"),
    ("variants/a/b", {"label": "x", "criterion": "wanda"}, "unknown key", "a"),
    ("models/demo..clip", {}, "'demo..clip' cannot be part of a path", "hyphens"),
    ("models/demo-clip/source", {"folder": "x", "hub": "a/b"}, "source", "one of"),
    ("models/demo-clip/source", {"hub": "a/b", "revision": "main"}, "source", "revision"),
    ("calibrations/scenes-image-captions/samples", 2001, "2001 samples of at most 2000", "Lower"),
    ("scores/small/samples", 500, "wants 500 samples", "at most 32"),
    ("scores/small/shards", 4, "small.shards: 4", "for zeroth alone"),
    ("data_folders", {"wikitext-2": "nowhere"}, "no folder 'nowhere'", "a folder that exists"),
]


def put(content, path, value):
    *parents, last = path.split("/")
    for part in parents:
        content = content.setdefault(part, {})
    if value is None:
        del content[last]
    else:
        content[last] = value


def test_the_file_without_a_mistake_is_right():
    configuration.check(merged(SMALL), ROOT)


@pytest.mark.parametrize(("path", "value", "said", "remedy"), CONFIGS)
def test_a_mistake_is_told_with_its_remedy(path, value, said, remedy):
    content = copy.deepcopy(SMALL)
    put(content, path, value)
    with pytest.raises(ConfigError) as caught:
        configuration.check(merged(content), ROOT)
    assert said in str(caught.value)
    assert remedy in str(caught.value)


def test_yaml_that_snakemake_reads_is_read(tmp_path):
    """In a flow mapping a key without value; libyaml refuses it, PyYAML alone does not."""
    (tmp_path / "a.yaml").write_text("a: {b:, c: 1}\nd: 1\nd: 2\n", encoding="utf-8")
    (problem,) = configuration.files_problems([tmp_path / "a.yaml"])
    assert "'d' stands twice" in problem


def test_a_folder_that_the_locale_cannot_name_is_told():
    code = (
        "from ecoflap_pipeline.config import check as config; name = 'caf\\xe9';"
        "print(*config._unnameable('config', {'data_folders': {'a': name}, 'title': name}))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = str(ROOT / "workflow" / "scripts")
    run = [sys.executable, "-c", code]
    env = {**os.environ, **plain, "PYTHONPATH": path}
    said = subprocess.run(run, env=env, capture_output=True, check=True).stdout.decode("ascii")
    assert said.count("cannot name") == 1
    assert "data_folders.a" in said
