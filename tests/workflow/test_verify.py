"""`verify`: each kind of damage and each change is told with the artifacts that it concerns."""

import contextlib
import copy
import os
import shutil
from pathlib import Path

import pytest

from ecoflap import artifacts
from ecoflap_pipeline import verify
from ecoflap_pipeline.config import check as configuration
from helpers.configs import ROOT, merged
from helpers.projects import SMALL

SCORES = "results/scores/demo-clip/scenes-image-captions/seed0/small.parquet"
PRUNED = "results/pruned/demo-clip/wanda/seed0/0.5"
PLAN = "results/allocations/demo-clip/small-ecoflap/seed0/0.5.json"


def config(change=lambda content: None):
    content = copy.deepcopy(SMALL)
    change(content)
    whole = merged(content)
    configuration.check(whole, ROOT)
    return whole


@pytest.fixture
def look(finished, monkeypatch):
    """Returns what is not whole, by path: state and reason."""
    monkeypatch.chdir(finished.folder)
    scripts = finished.folder / "workflow" / "scripts"

    def found(content=None):
        items = verify.verify(content or config(), scripts)
        return {str(i.path): (i.state, i.why) for i in items if i.state != verify.WHOLE}

    return found


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


@contextlib.contextmanager
def changed(path):
    """Puts a file back as it was, its time too."""
    times = os.stat(path)
    shutil.copy2(path, f"{path}.kept")
    yield
    os.replace(f"{path}.kept", path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_snakemake_verify_counts_what_is_whole_and_names_what_is_not(finished):
    code, output = finished.snakemake("verify")
    assert code == 0, output
    assert "artifacts: " in output
    assert "made with python" in output
    path = finished.folder / SCORES
    with changed(path):
        flip(path, 500)
        code, output = finished.snakemake("verify")
    assert code != 0
    assert f"damaged: {SCORES}" in output
    assert "results hold what should not be trusted" in output


def test_what_verify_advises_mends_the_results(finished, tmp_path):
    project = finished.copy(tmp_path)
    path = f"{PRUNED}/changes.safetensors"
    flip(project.folder / path, 500)
    code, output = project.snakemake("verify")
    assert code != 0
    assert "Make each such file again by `snakemake --force FILE`" in output
    code, output = project.snakemake("--force", path)
    assert code == 0, output
    code, output = project.snakemake("verify")
    assert code == 0, output


def test_all_kinds_of_artifacts_are_looked_at(finished, look):
    assert look() == {}
    paths = [str(item.path) for item in verify.verify(config(), finished.folder)]
    written = [
        str(path.relative_to(finished.folder))
        for path in finished.folder.glob("results/**/*")
        if path.suffix in (".json", ".parquet", ".safetensors")
        and "results/models" not in str(path)
    ]
    assert set(written) <= set(paths)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("results/models/demo-clip/model.safetensors", "model.safetensors is changed"),
        (f"{PRUNED}/changes.safetensors", "not those that were written"),
        (PLAN, "not those that were written"),
    ],
)
def test_a_flipped_bit_is_damage(look, path, said):
    with changed(path):
        flip(Path(path), -20)
        found = look()
    damaged = {name for name, (state, _) in found.items() if state == "damaged"}
    assert len(damaged) == 1
    assert said in found[damaged.pop()][1]


def test_another_sparsity_than_reported_is_damage(look):
    path = f"{PRUNED}/changes.safetensors"
    with changed(path):
        tensors, head = artifacts.read_tensors(path, "pruned")
        name = min(tensors)
        tensors[name][0] ^= 1
        artifacts.write_tensors(path, tensors, head)
        state, why = look()[path]
    assert state == "damaged"
    assert f"weights of {name.removesuffix('.mask')}; layers.parquet says" in why


def test_a_changed_config_is_told_with_what_rests_on_it(look):
    def wider(content):
        content["variants"]["small-ecoflap"]["max_sparsity"] = "+0.2"

    found = look(config(wider))
    assert found == {PLAN: ("out of date", "'allocation' in the configuration has changed")}


def test_what_the_config_does_not_name_is_no_fault(look):
    def without(content):
        del content["variants"]["small-ecoflap"]
        for experiment in content["experiments"].values():
            experiment["variants"].remove("small-ecoflap")

    found = look(config(without))
    assert {state for state, _ in found.values()} == {"not in this config"}
    assert all("small-ecoflap" in path for path in found)


def test_edited_code_is_told_with_what_it_made(finished, look):
    with finished.edit("workflow/scripts/ecoflap/criteria/wanda.py", '"""', '"""\n'):
        found = look()
    assert {state for state, _ in found.values()} == {"out of date"}
    assert {path.split("/")[3] for path in found} == {"wanda", "small-ecoflap"}
    assert all("results/pruned" in path for path in found)


def test_another_input_is_told(look):
    with changed(PLAN):
        content = artifacts.read_json(PLAN, "allocation")
        head = content.pop("ecoflap")
        artifacts.write_json(PLAN, {**content, "note": "another"}, head)
        found = look()
    changes = "results/pruned/demo-clip/small-ecoflap/seed0/0.5/changes.safetensors"
    assert found[changes] == ("out of date", f"{PLAN} is another one than it was made from")
