"""What is read of Snakemake without being documented is there, in a workflow that it has built."""

import subprocess
import sys
from pathlib import Path

SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from ecoflap_pipeline import internals

configfile: "given.yaml"

print("folder", workflow.current_basedir.get_path_or_uri(secret_free=True))
print("files", internals.config_files(workflow))
print("given", internals.config_given(workflow)["more"])
print("dry", internals.is_dry_run(workflow))
print("conda", internals.uses_conda(workflow))

onstart:
    print("executor", internals.executor(workflow))
    print("jobs", [job.rule.name for job in internals.jobs_to_run(workflow)])
    print("limited", workflow.scheduler.job_rate_limiter is not None)
    internals.lift_job_rate(workflow)

rule made:
    output: "made.txt"
    shell: "touch {{output}}"
"""


def run(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_every_part_of_snakemake_that_is_not_documented_is_there(tmp_path):
    scripts = str(Path(__file__).parents[2] / "workflow" / "scripts")
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(scripts=scripts))
    (tmp_path / "given.yaml").write_text("own: 1")
    arguments = ["--config", "more=2"]
    planned = run(tmp_path, "--dry-run", *arguments)
    assert planned["dry"] == "True"
    found = run(tmp_path, *arguments)
    assert found["folder"] == str(tmp_path)
    assert "given.yaml" in found["files"]
    assert found["given"] == "2"
    assert found["dry"] == "False"
    assert found["conda"] == "False"
    assert found["executor"] == "local"
    assert found["jobs"] == "['made']"
    assert found["limited"] == "True"
