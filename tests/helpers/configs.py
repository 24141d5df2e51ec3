"""The configuration as Snakemake merges it from the shipped files."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
# What a package is imported as, where that is not its name.
IMPORTED_AS = {
    "easy-vqa": "easy_vqa",
    "import-linter": "importlinter",
    "lm-eval": "lm_eval",
    "markdown-it-py": "markdown_it",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
}
FILES = (
    "config",
    "models",
    "datasets",
    "calibrations",
    "scores",
    "variants",
    "finetuning",
    "tasks",
    "experiments",
    "plotting",
)


def shipped(root: Path = ROOT) -> dict:
    """Returns what a bare run reads."""
    merged = {}
    for name in FILES:
        merged.update(yaml.safe_load((root / "config" / f"{name}.yaml").read_text()))
    return merged


def merged(further: dict, root: Path = ROOT) -> dict:
    """Returns what a file given with --configfile makes of it: mappings merge, lists do not."""
    config = shipped(root)

    def update(into: dict, new: dict) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                update(into[key], value)
            else:
                into[key] = value

    update(config, further)
    return config
