"""The Python of the pages runs as it stands, and their commands name things that exist."""

import re
import shlex
import subprocess
import sys

import yaml

from helpers.projects import ROOT

README = (ROOT / "README.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()
CLUSTER = (ROOT / "docs" / "cluster.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
PAGES |= {name: (ROOT / f"{name}.md").read_text() for name in ("README", "CONTRIBUTING")}


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def run_python(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_prunes_the_demo_model(project):
    (code,) = blocks("python")
    check = """
from transformers import Blip2ForConditionalGeneration
weights = Blip2ForConditionalGeneration.from_pretrained("results/pruned-demo").state_dict()
names = [name + ".weight" for name in plan["name"]]
zeros = sum(int((weights[name] == 0).sum()) for name in names)
share = zeros / sum(weights[name].numel() for name in names)
assert abs(share - 0.5) < 0.005, share
assert report["achieved_sparsity"].between(0.35, 0.61).all()
"""
    run_python(code + check, project.folder)


def test_the_criterion_to_copy_removes_what_is_nearest_to_the_mean_of_its_row(tmp_path):
    (code,) = blocks("python", PAGES["CONTRIBUTING"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nearest.py").write_text(code)
    check = """
import torch
from ecoflap.criteria import prune_matrix
weight = torch.tensor([[0.0, 4.0, 9.0, 3.0], [8.0, -2.0, 1.0, 1.0]])  # both rows: mean 4 and 2
pruned, mask = prune_matrix(weight, None, sparsity=0.5, criterion="mine.nearest")
assert mask.tolist() == [[False, True, False, True], [False, False, True, True]], mask
assert pruned.tolist() == [[0, 0, 9, 0], [8, -2, 0, 0]]
"""
    run_python(check, tmp_path)


def test_the_python_of_the_library_page_runs(project):
    check = """
import pandas as pd
from safetensors.torch import load_file
whole = ecoflap.score(ecoflap.load(folder, device="cpu"), batches[:1], estimator="zeroth", draws=2)
assert pd.concat(parts, ignore_index=True).equals(whole)
rows = choice.rows
assert rows["loss"][rows["chosen"]].tolist() == [rows["loss"].min()]
one = load_file("results/library-demo/model.safetensors")
index = pd.read_json("results/library-demo-from-disk/model.safetensors.index.json")
other = {}
for file in set(index["weight_map"].dropna()):
    other |= load_file(f"results/library-demo-from-disk/{file}")
assert set(one) == set(other)
assert all((one[name] == other[name]).all() for name in one)
"""
    run_python("\n".join(blocks("python", LIBRARY)) + check, project.folder)


def test_the_snakemake_commands_of_all_pages_build_their_dag(project, tmp_path, monkeypatch):
    text = "\n".join(block for page in PAGES.values() for block in blocks("bash", page))
    lines = text.replace("\\\n", " ").splitlines()
    commands = dict.fromkeys(line for line in lines if line.startswith("snakemake "))
    assert len(commands) >= 20
    (project.folder / "path" / "to" / "wikitext-2").mkdir(parents=True)
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))
    (project.folder / "partitions.yaml").write_text("partitions: {}")
    (project.folder / "cluster.yaml").write_text(blocks("yaml", CLUSTER)[0])
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        code, output = project.snakemake(*arguments, "--dry-run", configfile="")
        assert code == 0, (command, output)


def test_the_examples_of_the_config_readme_build_their_dag(project):
    text = (ROOT / "config" / "README.md").read_text()
    mix, example = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.S))
    example["variants"]["careful"]["calibration"] = next(iter(mix["calibrations"]))
    (project.folder / "mine.yaml").write_text(yaml.safe_dump({**mix, **example}))
    assert project.planned("mine", configfile="mine.yaml")["prune_model"] == 2


def test_the_make_targets_of_all_pages_exist():
    makefile = (ROOT / "Makefile").read_text()
    text = "\n".join(PAGES.values())
    targets = set(re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*)", text, re.M))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_paths_and_links_of_all_pages_exist():
    folders = "config|workflow|envs|docs|tests|ecoflap|ecoflap_pipeline"
    for page, text in PAGES.items():
        for path in re.findall(rf"`((?:{folders})/[A-Za-z0-9_./-]+)`", text):
            inside = ROOT / "workflow" / "scripts" if path.startswith("ecoflap") else ROOT
            placeholder = "NAME" in path or "VERB_NOUN" in path
            assert placeholder or (inside / path).exists(), (page, path)
        folder = ROOT if page in ("README", "CONTRIBUTING") else ROOT / "docs"
        for path in re.findall(r"\]\(([A-Za-z0-9_./-]+)\)", text):
            assert (folder / path).exists(), (page, path)
