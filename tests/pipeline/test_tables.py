"""Tables against small cases worked by hand."""

import io
import math

import pandas as pd
import pytest

from ecoflap import artifacts
from ecoflap.export import markup
from ecoflap_pipeline.report import collect, published, tables


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
    return collect.costs([prune], [used, other], [], {"m": {"a": ("c", ["s"])}})


def test_a_method_costs_its_own_score_and_its_pruning(tmp_path):
    (row,) = costs(tmp_path).to_dict("records")
    assert row["seconds"] == 5.0
    assert row["peak_memory_mb"] == 80.0


def test_tokens_per_feature_are_those_of_the_pruning_pass_and_stand_where_they_are_known(tmp_path):
    numbers = {"seconds": 1.0, "peak_memory_mb": 50.0, "achieved_sparsity": 0.5}
    numbers |= {"whole_model_sparsity": 0.4, "sparsity": "0.5"}
    for name, known in (("a", {"tokens_per_feature": 0.45}), ("b", {})):
        cost_file(tmp_path, name, variant=name, **numbers, **known)
    cost_file(tmp_path, "tuned", variant="tuned", **{"from": "a"}, **numbers)
    pruned = [tmp_path / "a.json", tmp_path / "b.json"]
    found = collect.costs(pruned, [], [], {"m": {}}, [tmp_path / "tuned.json"])
    assert found["tokens_per_feature"].tolist() == pytest.approx(
        [0.45, math.nan, 0.45], nan_ok=True
    )
    assert "tokens_per_feature" not in collect.costs(pruned[1:], [], [], {"m": {}})
    labels = {"models": {"m": "M"}, "variants": {"a": "A", "b": "B", "tuned": "C"}}
    long = tables.tidy(None, found, [], {"labels": labels})
    row = tables.side_by_side(long).set_index("Method")["Tokens per feature (least)"]
    assert row.tolist() == ["0.45", "", "0.45"]


SETTINGS = {
    "tasks": ["t"],
    "takes": {"m": ["t"]},
    "labels": {
        "models": {"m": "M"},
        "variants": {"a": "A", "b": "B"},
        "tasks": {"t": "T", "u": "U"},
    },
}
PUBLISHED = """# from the paper
method,sparsity,memory_gb,acc,other
dense,0.0,,95.0,1.5
ours,0.5,8.0,68.5,2.5
theirs,0.5,9.0,60.0,
"""


def published_cells(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED)
    return published.cells(published.read(path))


def test_numbers_that_are_not_said_to_be_the_same_stand_apart(frame, tmp_path):
    long = tables.tidy(
        collect.over_seeds(frame), costs(tmp_path), published_cells(tmp_path), SETTINGS
    )
    assert long["difference"].isna().all()
    text = tables.markdown(long, "Title")
    measured, others = text.split("Published by the paper")
    assert "| M | Dense | 0.0 | 90.0 ± 1.0 |  |  |  |  |" in measured
    assert "| M | A | 0.5 | 70.0 ± 10.0 | 50.0 | 40.0 | 5.0 | 80.0 |" in measured
    assert "68.5" not in measured
    assert others.index("| dense | 0.0 |") < others.index("| ours | 0.5 | 8.0 | 68.5 | 2.5 |")
    assert "over up to 2 calibration seeds" in measured
    latex = tables.latex(long, "50% & more")
    assert r"50\% \& more" in latex
    assert r"70.0 $\pm$ 10.0" in latex


@pytest.fixture
def compared(frame, tmp_path):
    """Method a is the published one, b was not run; column other has no task of ours."""
    settings = {
        **SETTINGS,
        "average": {"t": ["accuracy"]},
        "published_rows": {"dense": "dense", "a": "ours", "b": "theirs"},
        "published_columns": {
            "t/accuracy": "acc",
            "u/accuracy": "other",
            "peak_memory_mb": "memory_gb",
        },
    }
    return tables.tidy(
        collect.over_seeds(frame), costs(tmp_path), published_cells(tmp_path), settings
    )


def test_measured_published_and_difference_stand_side_by_side(compared):
    rows = tables.side_by_side(compared).set_index("Method")
    # Dense: 90 measured, 95 published. Method a: 70 and 68.5.
    assert rows.loc["Dense", "T"] == "90.0 ± 1.0 (95.0, −5.0)"
    assert rows.loc["A", "T"] == "70.0 ± 10.0 (68.5, +1.5)"
    # 80 MiB measured against 8 GB of 1,024 MiB published.
    assert rows.loc["A", "Memory (MiB)"] == "80.0 (8192.0, −8112.0)"
    assert rows.loc["A", "Average"] == "70.0"
    assert "Published by the paper" not in tables.markdown(compared, "Title")


def test_what_was_not_run_says_so_and_is_never_shown_as_measured(compared):
    rows = tables.side_by_side(compared).set_index("Method")
    assert rows.loc["B", "T"] == "not run (60.0)"
    assert rows.loc["B", "U"] == "not run"
    assert rows.loc["Dense", "U"] == "not run (1.5)"
    measured = compared[compared["source"] == "measured"]
    assert not measured["value"].isin([60.0, 1.5, 2.5]).any()


def test_two_models_of_one_label_share_a_row(tmp_path):
    files = [metrics_file(tmp_path, "dense", 0, 0.9, "0.0")]
    frame = collect.metrics(files)
    other = frame.assign(model="n", task="u", value=40.0)
    settings = {
        **SETTINGS,
        "tasks": ["t", "u"],
        "takes": {"m": ["t"], "n": ["u"]},
        "labels": {**SETTINGS["labels"], "models": {"m": "M", "n": "M"}},
        "average": {"t": ["accuracy"], "u": ["accuracy"]},
    }
    summary = collect.over_seeds(pd.concat([frame, other]))
    long = tables.tidy(summary, costs(tmp_path), [], settings)
    row = tables.side_by_side(long).set_index("Method").loc["Dense"]
    assert (row["T"], row["U"], row["Average"]) == ("90.0 ± 1.0", "40.0 ± 1.0", "65.0")


def number_file(folder, model, number, seed=0, variant="a"):
    """A file of one number as `metrics.compute` tells it."""
    point = {"model": model, "variant": variant, "sparsity": "0.5", "seed": seed}
    row = {"task": "t", "metric": "perplexity", "subset": "", "standard_error": None, "n": 1}
    path = folder / f"{model}-{variant}-{seed}.json"
    artifacts.write_json(path, {**point, "metrics": [{**row, **number}]}, head("metrics"))
    return path


INFINITE = {"value": "inf", "note": "the loss of 1 of 2 windows is no number"}
NOTHING = {"value": None, "note": "why not"}


@pytest.mark.parametrize(
    ("numbers", "value", "cell"),
    [
        ([{"value": 12.0}, {"value": 14.0}], 13.0, "13.00 \u00b1 1.00"),
        ([{"value": 12.0}, INFINITE], math.inf, "inf"),
        ([INFINITE, INFINITE], math.inf, "inf"),
        ([{"value": 12.0}, NOTHING], math.nan, "\u2013"),
        ([NOTHING], math.nan, "\u2013"),
        ([INFINITE, NOTHING], math.nan, "\u2013"),
    ],
)
def test_a_mean_with_what_is_no_number_is_none(numbers, value, cell, tmp_path):
    """The error of 12 and 14 is sqrt(2 / 2)."""
    files = [number_file(tmp_path, "m", number, seed) for seed, number in enumerate(numbers)]
    summary = collect.over_seeds(collect.metrics(files))
    assert summary["value"].tolist() == pytest.approx([value], nan_ok=True)
    settings = {**SETTINGS, "average": {"t": ["perplexity"]}}
    long = tables.tidy(summary, costs(tmp_path), [], settings)
    row = tables.side_by_side(long).iloc[0]
    assert row["T perplexity"] == cell
    assert row["Average"] == cell.partition(" ")[0].replace("13.00", "13.0")
    for text in (tables.markdown(long, "Title"), tables.latex(long, "Title")):
        assert all(number.get("note", "") in text for number in numbers)
    again = pd.read_csv(io.StringIO(long.to_csv(index=False)))
    assert again["value"].iloc[0] == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("number", "cell"), [(INFINITE, "inf (68.50)"), (NOTHING, "\u2013 (68.50)")]
)
def test_what_is_no_number_has_no_difference_from_the_published_one(number, cell, tmp_path):
    summary = collect.over_seeds(collect.metrics([number_file(tmp_path, "m", number)]))
    settings = {
        **SETTINGS,
        "published_rows": {"a": "ours"},
        "published_columns": {"t/perplexity": "acc"},
    }
    long = tables.tidy(summary, costs(tmp_path), published_cells(tmp_path), settings)
    assert tables.side_by_side(long).set_index("Method").loc["A", "T perplexity"] == cell


def test_a_remark_names_the_rows_that_it_is_of(tmp_path):
    files = [number_file(tmp_path, "m", {"value": 9.0}, variant="a")]
    files += [number_file(tmp_path, "m", NOTHING, variant="b")]
    summary = collect.over_seeds(collect.metrics(files))
    text = tables.note(tables.tidy(summary, costs(tmp_path), [], SETTINGS))
    assert text.endswith("\u2013: not defined. T perplexity of M B 0.5: why not.")
    assert "Tokens per feature" not in text
    known = costs(tmp_path).assign(tokens_per_feature=0.5)
    assert "Tokens per feature:" in tables.note(tables.tidy(summary, known, [], SETTINGS))


def test_labels_with_characters_that_tables_use_stay_text():
    table = pd.DataFrame({"Method": [r"a|b {c} \d ~ ^"]})
    assert r"a\|b" in tables.pipe_table(table)
    escaped = r"a\textbar{}b \{c\} \textbackslash{}d \~{} \^{}"
    assert markup.latex(table["Method"][0]) == escaped


def test_a_huge_number_is_short():
    assert tables._cell(1.5e30, float("nan"), "Perplexity") == "1.5e+30"
    assert tables._cell(123456.7, float("nan"), "Perplexity") == "123456.7"
    assert tables._cell(float("inf"), float("nan"), "Perplexity") == "inf"
