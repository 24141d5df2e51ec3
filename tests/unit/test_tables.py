"""Tables against small cases worked by hand."""

import math

import pandas as pd
import pytest
from ecoflap import artifacts, collect, tables


def head(kind):
    return artifacts.header(kind, rule="test", code="", config={})


def metrics_file(folder, variant, seed, value, sparsity="0.5"):
    row = {"metric": "accuracy", "value": value, "standard_error": 0.01, "n": 100}
    rows = [{"task": "t", "subset": subset, **row} for subset in ("", "part")]
    point = {"model": "m", "variant": variant, "sparsity": sparsity, "seed": seed}
    path = folder / f"{variant}-{seed}.json"
    artifacts.write_json(path, {**point, "metrics": rows}, head("metrics"))
    return path


def cost_file(folder, name, **facts):
    path = folder / f"{name}.json"
    artifacts.write_json(path, {"model": "m", "seed": 0, **facts}, head("cost"))
    return path


@pytest.fixture
def frame(tmp_path):
    files = [metrics_file(tmp_path, "dense", 0, 0.9, "0.0")]
    files += [metrics_file(tmp_path, "a", seed, value) for seed, value in enumerate((0.6, 0.8))]
    return collect.metrics(files)


def test_means_and_errors_over_seeds_and_over_items(frame):
    dense, pruned = collect.over_seeds(frame).to_dict("records")
    assert dense["value"] == pytest.approx(90)
    assert (dense["standard_error"], dense["error_over"]) == (pytest.approx(1), "items")
    assert pruned["value"] == pytest.approx(70)
    # Deviations of 10 and 10: variance 200, over two seeds.
    assert pruned["standard_error"] == pytest.approx(math.sqrt(200 / 2))
    assert (pruned["seeds"], pruned["error_over"]) == (2, "seeds")


def costs(tmp_path):
    numbers = {"peak_memory_mb": 50.0, "achieved_sparsity": 0.5, "whole_model_sparsity": 0.4}
    point = {"variant": "a", "sparsity": "0.5"}
    prune = cost_file(tmp_path, "prune", **point, seconds=2.0, **numbers)
    score = {"score": "s", "peak_memory_mb": 80.0}
    used = cost_file(tmp_path, "used", calibration="c", seconds=3.0, **score)
    other = cost_file(tmp_path, "other", calibration="d", seconds=9.0, **score)
    return collect.costs([prune], [used, other], [], {"m": {"a": ("c", "s")}})


def test_a_method_costs_its_own_score_and_its_pruning(tmp_path):
    (row,) = costs(tmp_path).to_dict("records")
    assert row["seconds"] == 5.0
    assert row["peak_memory_mb"] == 80.0


def test_measured_and_published_numbers_stand_apart(frame, tmp_path):
    path = tmp_path / "published.csv"
    path.write_text(
        "# from the paper\nmethod,sparsity,memory_gb,acc\ndense,0.0,,63.1\nb,0.5,8.5,0.0\n"
    )
    settings = {
        "tasks": ["t"],
        "labels": {"models": {"m": "M"}, "variants": {"a": "A"}, "tasks": {"t": "T"}},
    }
    long = tables.tidy(
        collect.over_seeds(frame), costs(tmp_path), tables.read_published(path), settings
    )
    text = tables.markdown(long, "Title")
    measured, published = text.split("Published by the paper")
    assert "| M | Dense | 0.0 | 90.0 ± 1.0 |  |  |  |  |" in measured
    assert "| M | A | 0.5 | 70.0 ± 10.0 | 50.0 | 40.0 | 5.0 | 80.0 |" in measured
    assert published.index("| dense | 0.0 |  | 63.1 |") < published.index(
        "| b | 0.5 | 8.5 | 0.00 |"
    )
    assert "over 2 calibration seeds" in measured
    latex = tables.latex(long, "50% & more")
    assert r"50\% \& more" in latex
    assert r"70.0 $\pm$ 10.0" in latex


def test_labels_with_characters_that_tables_use_stay_text():
    table = pd.DataFrame({"Method": [r"a|b {c} \d ~ ^"]})
    assert r"a\|b" in tables.pipe_table(table)
    escaped = r"a|b \{c\} \textbackslash{}d \~{} \^{}"
    assert tables._escape(table["Method"][0]) == escaped
