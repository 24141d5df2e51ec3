"""The library without the packages of its extras, as `pip install .` leaves it."""

import subprocess
import sys
import tomllib

from helpers.configs import IMPORTED_AS, ROOT

# Every package of the extras is missing; so is the pipeline package, which no wheel has.
LIGHT = """
import sys

sys.modules.update(dict.fromkeys(sys.argv[2:]))  # an import of None fails
import torch
import ecoflap

folder = sys.argv[1]
model = ecoflap.load(folder, device="cpu")
size = model.module.config.vision_config.image_size
words = torch.arange(1, 9).reshape(2, 4)
batches = [{"pixel_values": torch.randn(2, 3, size, size), "input_ids": words}]
scores = ecoflap.score(model, batches, estimator="gradnorm")
plan = ecoflap.allocate(scores, sparsity="0.5", max_sparsity="0.6")
report = ecoflap.prune(model, batches, plan, criterion="wanda")
model.save("light")
print(round(report["achieved_sparsity"].mean(), 1))
"""


def test_a_model_is_scored_pruned_and_saved_without_the_extras(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {line for lines in project["optional-dependencies"].values() for line in lines}
    names = {line.partition(">=")[0] for line in extras if not line.startswith("ecoflap")}
    # transformers itself reads YAML.
    missing = {IMPORTED_AS.get(name, name) for name in names} - {"yaml"} | {"ecoflap_pipeline"}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, ROOT / "workflow/resources/demo/demo-clip", *missing],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "0.5"
    assert (tmp_path / "light" / "model.safetensors").is_file()
