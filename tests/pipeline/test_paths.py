"""Where artifacts lie: paths written out by hand, and there and back."""

import re

import pytest

from ecoflap.errors import ArtifactError
from ecoflap_pipeline import params, paths
from ecoflap_pipeline.paths import ARTIFACTS

NAMES = {
    "model": "demo-blip2",
    "dataset": "coco-captions",
    "split": "train",
    "view": "captions",
    "task": "captions",
    "calibration": "mix",
    "score": "gradnorm",
    "variant": "ecoflap-admm",
    "seed": 12,
    "sparsity": "0.55",
    "suite": "generation",
    "landscape": "demo-landscape",
}


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda artifact: artifact.template)
def test_a_path_tells_its_artifact_and_its_wildcards(artifact):
    path = artifact.at(**NAMES)
    wildcards = re.findall(r"{(\w+)}", artifact.template)
    expected = (artifact, {name: str(NAMES[name]) for name in wildcards})
    assert paths.artifact_at(path) == expected
    if artifact.is_folder:
        assert paths.artifact_at(f"{path}/manifest.json") == expected


@pytest.mark.parametrize(
    "path",
    [
        "results/allocations/demo-blip2/wanda/seed0/0.50.json",  # a sparsity has one form
        "results/allocations/demo-blip2/wanda/seedx/0.5.json",
        "results/scores/demo-blip2/captions/seed0/gradnorm-parquet",  # a dot is a dot
        "results/models/a/b",
        "elsewhere/results/models/a",
        "results/pruned/demo-blip2/wanda/seed0/0.5/changes.safetensors.tmp",
    ],
)
def test_what_is_no_artifact_is_refused(path):
    with pytest.raises(ArtifactError, match=r"is no artifact.* Allowed: results/models/\{model\}"):
        paths.artifact_at(path)


def test_artifacts_are_found_on_the_disk_with_their_wildcards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for artifact in (paths.PLAN, paths.CHOICE, paths.MODEL):
        path = tmp_path / artifact.at(**NAMES)
        path = path / "manifest.json" if artifact.is_folder else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (plan, names), *others = paths.PLAN.made()
    assert plan.as_posix() == "results/allocations/demo-blip2/ecoflap-admm/seed12/0.55.json"
    assert names["sparsity"] == "0.55"
    assert not others  # the choice lies in the same folder
    assert [path.name for path, _ in paths.MODEL.made()] == ["manifest.json"]


def test_every_artifact_rests_on_a_rule_that_says_what_it_reads():
    assert {artifact.rule for artifact in ARTIFACTS} <= set(params.RULES)
