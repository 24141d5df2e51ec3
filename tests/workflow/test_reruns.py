"""What runs again after what: each line of the table in docs/reproduce.md, on a finished run."""

import copy
import os
import shutil

import pytest

from helpers.projects import ROOT, SMALL, numbers

NONE = {}
SCORES = "results/scores/demo-clip/scenes-image-captions/seed0/small.parquet"
LIBRARY = "workflow/scripts/ecoflap"
# Two variants prune with Wanda, one by global magnitude; with the dense model four are evaluated.
PRUNED_BY_WANDA = {"prune_model": 2, "evaluate_model": 2, "make_table": 1, "plot_figure": 1}
ONE_ALLOCATION = {"allocate_sparsity": 1, **PRUNED_BY_WANDA, "prune_model": 1, "evaluate_model": 1}
OTHER = "any other module of the library"
NO_NUMBER = (
    "`plugins.py`, errors, how settings are checked, the model card, "
    "how jobs start and costs are measured"
)
# The table's line, a file, what stands in it, what stands in it then, and the jobs that run.
EDITS = [
    ("a comment", "config/variants.yaml", "variants:", "# new\nvariants:", NONE),
    (
        "a colour in `config/plotting.yaml`",
        "config/plotting.yaml",
        "#0072B2",
        "#000000",
        {"plot_figure": 1},
    ),
    ("`max_sparsity` of a variant", "small.yaml", "+0.1", "+0.2", ONE_ALLOCATION),
    (
        "a sparsity added to a list",
        "small.yaml",
        "- '0.5'",
        "- '0.5'\n    - '0.6'",
        {"allocate_sparsity": 2, "prune_model": 3, "evaluate_model": 3, "make_table": 1}
        | {"plot_figure": 1},
    ),
    ("`criteria/wanda.py`", f"{LIBRARY}/criteria/wanda.py", '"""', '"""\n', PRUNED_BY_WANDA),
    (
        OTHER,
        f"{LIBRARY}/scores/gradnorm.py",
        '"""',
        '"""\n',
        {"compute_scores": 1, **ONE_ALLOCATION},
    ),
    (
        OTHER,
        f"{LIBRARY}/evaluation/metrics.py",
        '"""',
        '"""\n',
        {"evaluate_model": 4, "make_table": 1, "plot_figure": 1},
    ),
    (
        OTHER,
        "workflow/scripts/ecoflap_pipeline/report/figures.py",
        '"""',
        '"""\n',
        {"plot_figure": 1},
    ),
    (OTHER, f"{LIBRARY}/scores/zeroth.py", '"""', '"""\n', NONE),
    (NO_NUMBER, f"{LIBRARY}/plugins.py", '"magnitude",', '"magnitude", "new",', NONE),
    (NO_NUMBER, f"{LIBRARY}/data/settings.py", '"""', '"""\n', NONE),
]


def jobs(planned):
    return {rule: n for rule, n in planned.items() if rule not in ("all", "total")}


@pytest.mark.parametrize(("line", "path", "old", "new", "expected"), EDITS)
def test_an_edit_runs_what_it_must_and_nothing_else(finished, line, path, old, new, expected):
    with finished.edit(path, old, new):
        assert jobs(finished.planned()) == expected


def test_nothing_changed(finished):
    code, output = finished.snakemake()
    assert code == 0
    assert "Nothing to be done" in output


def test_a_touched_script(copied):
    os.utime(copied.folder / "workflow/scripts/prune_model.py")
    os.utime(copied.folder / LIBRARY / "pruning/layerwise.py")
    assert jobs(copied.planned()) == NONE


def test_a_deleted_intermediate_file(copied, finished):
    (copied.folder / SCORES).unlink()
    assert jobs(copied.planned()) == NONE
    code, output = copied.snakemake(SCORES)
    assert code == 0, output
    assert numbers(copied) == numbers(finished)


def test_forcing_a_rule(copied):
    planned = jobs(copied.planned("-R", "prune_model"))
    assert planned == {**PRUNED_BY_WANDA, "prune_model": 3, "evaluate_model": 3}


def test_touching_outputs_accepts_what_is_there(copied):
    os.utime(copied.folder / "workflow/resources/demo/demo-clip/model.safetensors")
    assert jobs(copied.planned())["prepare_model"] == 1
    code, output = copied.snakemake("--touch")
    assert code == 0, output
    assert jobs(copied.planned()) == NONE


def test_each_line_of_the_table_is_tested_here():
    text = (ROOT / "docs" / "reproduce.md").read_text()
    table = text.partition("| what you change | what runs again |")[2].partition("\n\n")[0]
    lines = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    others = [
        "nothing",
        "a file's time, not its content: a script or a module",
        "an intermediate file, deleted",
        "`-R prune_model` on the command line",
        "`--touch` on the command line",
    ]
    assert sorted(lines) == sorted({line for line, *_ in EDITS} | set(others))


def test_a_cache_between_workflows_makes_the_same_files(finished, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    environment = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    rules = ("extract_calibration", "compute_scores", "evaluate_model")
    made, stored = [], []
    for name in ("first", "second"):
        project = finished.copy(tmp_path_factory.mktemp(name))
        for stage in ("calibration", "scores", "evaluation", "logs"):
            shutil.rmtree(project.folder / "results" / stage)
        goal = "results/evaluation/demo-clip/dense/seed0/0.0/demo-zero-shot/metrics.json"
        code, output = project.snakemake(
            "--cache", *rules, "--", SCORES, goal, environment=environment
        )
        assert code == 0, output
        made.append(numbers(project))
        stored.append(sorted(path.name for path in cache.iterdir()))
    (log,) = project.folder.glob("results/logs/compute_scores/**/*.log")
    assert log.read_text() == ""  # the job did not run
    assert stored[0] == stored[1]
    assert made[0] == made[1]
    of_run = numbers(finished)
    assert all(of_run[path] == digest for path, digest in made[0].items())


# Removes what magnitude keeps.
OUTSIDE = """
import torch
from ecoflap.criteria.magnitude import NEEDS_INPUTS, UPDATES_WEIGHTS, statistics

def prune(weight, statistics, selection):
    mask = selection.smallest(-weight.abs().float())
    return weight.masked_fill(mask, 0), mask
"""


def test_a_criterion_of_another_package_gets_its_row_and_nothing_else_runs(copied, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "largest.py").write_text(OUTSIDE)
    path = {"PYTHONPATH": str(tmp_path)}
    config = copy.deepcopy(SMALL)
    config["variants"]["outside"] = {
        "label": "Largest first",
        "allocation": "uniform",
        "criterion": "outside.largest",
    }
    config["experiments"]["small-table"]["variants"].append("outside")
    copied.write_config(config)
    planned = jobs(copied.planned(environment=path))
    one = ("allocate_sparsity", "prune_model", "evaluate_model", "make_table")
    assert planned == dict.fromkeys(one, 1)
    code, output = copied.snakemake(environment=path)
    assert code == 0, output
    table = (copied.folder / "results/tables/small-table.md").read_text()
    assert "| Largest first | 0.5 |" in table
    code, output = copied.snakemake()
    assert code != 0
    assert "variants.outside.criterion: no module 'outside.largest'" in output
    copied.write_config(SMALL)
