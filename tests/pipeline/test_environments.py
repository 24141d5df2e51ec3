"""One lock: what the conda environment pins is what the host environment pins.

Models of other libraries have environments of their own, each pinned in one file.
"""

import ast
import sys

import pytest
import yaml

from ecoflap.plugins import ENVIRONMENTS, FAMILIES
from ecoflap_pipeline.job import NEEDED
from helpers.configs import IMPORTED_AS, ROOT

PACKAGES = {"ecoflap", "ecoflap_pipeline", "bench", "demo"}
PEER = "llm-compressor"  # of a benchmark, not of a family
WITH_TRANSFORMERS = {"huggingface_hub", "tokenizers"}
# transformers imports these when it reads GGUF files and tokenizers.
INDIRECT = {"gguf", "sentencepiece"}
HOST = {"snakemake"}  # of what no job imports
ELSEWHERE = {"torchvision", "llmcompressor", *ENVIRONMENTS.values()}  # of other environments alone
INSTALLED_AS = {"PIL": "pillow", "lavis": "salesforce-lavis", "open_clip": "open_clip_torch"}


def pins():
    lines = (ROOT / "envs/lock.txt").read_text().splitlines()
    return {line.lower() for line in lines if line and not line.startswith("#")}


def rule_packages(environment="pipeline"):
    content = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())
    return content["dependencies"][-1]["pip"]


def test_every_line_of_the_lock_is_an_exact_pin():
    assert all(line.count("==") == 1 for line in pins())


def test_rules_use_the_versions_of_the_lock():
    assert {line.lower() for line in rule_packages()} <= pins()


def test_rules_pin_all_that_the_library_imports():
    imported = set()
    for path in (ROOT / "workflow/scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - PACKAGES - HOST - ELSEWHERE
    names = {line.partition("==")[0].lower() for line in rule_packages()}
    assert third_party - WITH_TRANSFORMERS == {
        IMPORTED_AS.get(name, name) for name in names - INDIRECT
    }


def test_families_have_an_environment_that_exists():
    needed = {family.environment for family in FAMILIES.values()}
    assert needed == {"pipeline", *ENVIRONMENTS}
    assert {path.stem for path in (ROOT / "envs").glob("*.yaml")} == {*needed, PEER}


def test_the_environment_of_the_benchmark_pins_the_torch_of_the_lock():
    lines = {line.lower() for line in rule_packages(PEER)}
    assert all(line.count("==") == 1 for line in lines)
    (torch,) = (line for line in pins() if line.startswith("torch=="))
    assert torch in lines
    assert any(line.startswith("llmcompressor==") for line in lines)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_other_environments_pin_all_that_their_jobs_stand_on(environment):
    lines = rule_packages(environment)
    assert all(line.count("==") == 1 for line in lines)
    names = {line.partition("==")[0].lower() for line in lines}
    wanted = {*NEEDED, "torchvision", ENVIRONMENTS[environment]}
    assert {INSTALLED_AS.get(name, name) for name in wanted} <= names
