"""Bad input through Snakemake itself: not 0, one message with a remedy, no traceback, no loss."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from PIL import Image
from safetensors import torch as tensors

from helpers import architectures
from helpers.projects import SMALL, TOO_MANY, Project

CONFIGS = [
    ({"sedes": [1]}, "unknown key 'sedes'", "Did you mean 'seeds'"),
    ({"run": ["small-tabel"]}, "unknown experiment 'small-tabel'", "Did you mean 'small-table'"),
    ({"models": {"demo-clip": {"source": {"folder": "nowhere"}}}}, "nowhere", "counts from where"),
    ({"data_folders": {"wikitext-2": "nowhere"}}, "no folder 'nowhere'", "a folder that exists"),
    ({"variants": {"a b": {"label": "x", "criterion": "wanda"}}}, "'a b' cannot be", "hyphens"),
]


def refused(project, *said, arguments=(), environment=None):
    before = contents(project)
    code, output = project.snakemake(*arguments, environment=environment or {})
    assert code != 0, output
    for part in said:
        assert part in output, output
    assert "Traceback" not in output, output
    assert before.items() <= contents(project).items()
    assert not list(project.folder.glob("results/**/*.tmp"))


def contents(project):
    """What a run may not lose: all results but logs."""
    files = project.folder.glob("results/**/*")
    return {p: p.stat().st_mtime_ns for p in files if p.is_file() and "logs" not in p.parts}


@pytest.mark.parametrize(("section", "said", "remedy"), CONFIGS)
def test_a_wrong_config_is_told_before_any_job(project, section, said, remedy):
    """What else can be wrong: tests/pipeline/test_run_config.py."""
    (project.folder / "wrong.yaml").write_text(yaml.safe_dump({**SMALL, **section}))
    before = contents(project)
    code, output = project.snakemake("--quiet", "rules", configfile="wrong.yaml")
    assert code != 0, output
    assert said in output
    assert remedy in output
    assert "Traceback" not in output
    assert "Finished jobid" not in output
    assert contents(project) == before


TEXTS = [
    ("run: [small-table\n", "not valid JSON or YAML"),
    ("- small-table\n", "keys at top level"),
    ("seeds: [0]\nvariants: {wanda: {}, wanda: {}}\n", "'wanda' stands twice"),
]


@pytest.mark.parametrize(("text", "said"), TEXTS)
def test_a_config_file_that_is_no_config_is_told(project, text, said):
    (project.folder / "wrong.yaml").write_text(text)
    code, output = project.snakemake(configfile="wrong.yaml")
    assert code != 0
    assert said in output
    assert "Traceback" not in output


def job_fails(project, change, *said, **options):
    """Runs the small DAG of a project of its own with another configuration."""
    content = copy.deepcopy(SMALL)
    change(content, project.folder)
    project.write_config(content)
    return refused(project, *said, "Allowed: ", **options)


def test_fewer_samples_than_asked_for(tmp_path):
    def change(content, _):
        content["calibrations"]["scenes-image-captions"] = TOO_MANY

    said = "1900 samples asked for"
    job_fails(Project(tmp_path), change, said, arguments=["calibrations"])


def test_a_pattern_that_does_not_fit_the_matrices(finished, tmp_path):
    def change(content, _):
        content["variants"]["small-ecoflap"] = {
            "label": "x",
            "criterion": "magnitude",
            "pattern": "3:5",
        }
        content["experiments"]["small-table"]["sparsities"] = ["0.4"]

    job_fails(
        finished.copy(tmp_path),
        change,
        "3:5",
        arguments=["results/pruned/demo-clip/small-ecoflap/seed0/0.4/changes.safetensors"],
    )


def checkpoint(folder, change):
    copied = folder / "model"
    shutil.copytree(folder / "workflow/resources/demo/demo-clip", copied)
    change(copied)
    return {"folder": "model"}


def test_weights_that_are_not_numbers(tmp_path):
    def spoil(folder):
        weights = tensors.load_file(folder / "model.safetensors")
        weights[max(weights, key=lambda name: weights[name].numel())].view(-1)[7] = float("nan")
        tensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def change(content, folder):
        content["models"] = {"demo-clip": {"source": checkpoint(folder, spoil)}}

    job_fails(Project(tmp_path), change, "not finite", arguments=["results/models/demo-clip"])


def test_a_checkpoint_cut_short(tmp_path):
    def cut(folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-1000])

    def change(content, folder):
        content["models"] = {"demo-clip": {"source": checkpoint(folder, cut)}}

    goal = "results/models/demo-clip"
    job_fails(Project(tmp_path), change, "model.safetensors", arguments=[goal])


def test_a_hub_id_without_network(tmp_path):
    project = Project(tmp_path)
    models = yaml.safe_load((project.folder / "config/models.yaml").read_text())
    source = {"hub": "no-one/nothing", "revision": "0" * 40}
    models["models"]["demo-clip"]["source"] = source
    (project.folder / "config/models.yaml").write_text(yaml.safe_dump(models))
    refused(project, "no-one/nothing", "Allowed: ", arguments=["results/models/demo-clip"])


def test_a_picture_cut_short(finished, tmp_path):
    def change(content, folder):
        (folder / "pictures").mkdir()
        for name in ("a", "b"):
            Image.effect_noise((64, 64), 50).save(folder / f"pictures/{name}.png")
            (folder / f"pictures/{name}.txt").write_text("a noise")
        whole = (folder / "pictures/b.png").read_bytes()
        (folder / "pictures/b.png").write_bytes(whole[:500])
        content["datasets"] = {
            "mine": {"layout": "image-text", "folder": "pictures", "splits": {"train": {}}}
        }
        content["calibrations"]["mine"] = {
            "dataset": {"name": "mine", "split": "train", "view": "captions"},
            "format": "image-caption",
            "samples": 2,
        }

    goal = "results/calibration/demo-clip/mine/seed0/samples.safetensors"
    said = "the picture b.png cannot be read"
    job_fails(finished.copy(tmp_path), change, said, arguments=[goal])


def test_missing_java_is_told_before_the_first_job(project, tmp_path):
    content = copy.deepcopy(SMALL)
    content["tasks"]["captions"] = {"tokenizer": "ptb"}
    content["experiments"]["small-table"] |= {
        "models": ["demo-blip2"],
        "variants": ["magnitude"],
        "tasks": ["captions"],
    }
    del content["experiments"]["small-table"]["published"]
    content["suites"]["demo-generation"] = ["captions"]
    (project.folder / "captions.yaml").write_text(yaml.safe_dump(content))
    for program in ("bash", "sh", "which", "env"):
        (tmp_path / program).symlink_to(shutil.which(program))
    code, output = project.snakemake(
        "small-table", configfile="captions.yaml", environment={"PATH": str(tmp_path)}
    )
    assert code != 0
    assert "Java is missing" in output
    assert "default-jre-headless" in output
    assert "Traceback" not in output
    assert not (project.folder / "results/models/demo-blip2").exists()


def test_the_slurm_profile_where_there_is_no_slurm(project, tmp_path):
    for program in ("bash", "sh", "which", "env"):
        (tmp_path / program).symlink_to(shutil.which(program))
    code, output = project.snakemake(
        *("calibrations", "--profile", "profiles/slurm"),
        environment={"PATH": str(tmp_path)},
    )
    assert code != 0
    assert output.count("no Slurm answers here (there is no command sinfo)") == 1
    assert "without --profile profiles/slurm" in output
    assert "Error in rule" not in output
    assert "Traceback" not in output


def mounted(project, size, flags, command):
    """Runs a command in the project with ``results`` on a small disk of its own."""
    (project.folder / "results").mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={size} none results && {flags} true && exec {command}"
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
        cwd=project.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


SNAKEMAKE = f"{sys.executable} -m snakemake --configfile small.yaml --cores 1 "


def test_a_model_without_a_processor_is_refused_when_it_is_prepared(tmp_path):
    project = Project(tmp_path)
    architectures.ARCHITECTURES["llava"].build().save_pretrained(project.folder / "llava")
    entry = {"label": "Mine", "family": "image-text", "calibration": "scenes-captions"}
    project.write_config({**SMALL, "models": {"mine": {**entry, "source": {"folder": "llava"}}}})
    code, output = project.snakemake("results/models/mine")
    assert code != 0
    assert "'results/models/mine' has no tokenizer, without which" in output
    assert "Traceback" not in output
    assert not (project.folder / "results/models/mine").exists()


def test_a_home_that_cannot_be_written(project, tmp_path):
    # Not even root makes a folder in /proc.
    homes = {"HOME": "/proc/none", "XDG_CACHE_HOME": str(tmp_path)}
    code, output = project.snakemake("results/models/demo-clip", environment=homes)
    assert code == 0, output


def test_a_full_disk(tmp_path):
    project = Project(tmp_path)
    done = mounted(project, "3m", "", SNAKEMAKE + "results/models/demo-clip 2>&1")
    assert done.returncode != 0
    assert "No space left on device" in done.stdout, done.stdout + done.stderr
    assert "Free some space" in done.stdout
    assert "Traceback" not in done.stdout
    # With room it ends well: nothing half-made was left behind.
    assert project.snakemake("results/models/demo-clip")[0] == 0


def test_a_results_folder_that_is_read_only(tmp_path):
    project = Project(tmp_path)
    done = mounted(project, "3m", "mount -o remount,ro results &&", SNAKEMAKE + "2>&1")
    assert done.returncode != 0
    assert "results may not be written" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stdout


def test_two_runs_in_one_folder(tmp_path):
    project = Project(tmp_path)
    command = [*SNAKEMAKE.split(), "calibrations"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=project.folder, env=environment, stdout=subprocess.DEVNULL, stderr=-3
    ) as first:
        locks = project.folder / ".snakemake" / "locks"
        while not (locks.is_dir() and any(locks.iterdir())):
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)  # or it could end before the other has begun
        code, output = project.snakemake("calibrations")
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
    assert code != 0
    assert "lock" in output.lower()
    assert "Traceback" not in output
    made = json.loads(next(project.folder.glob("results/calibration/**/manifest.json")).read_text())
    assert len(made["samples"]) == 32
