"""What a run rests on: what the jobs of each rule cost, versions and licences."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from ecoflap_pipeline import targets
from ecoflap_pipeline.report import costs, tables


def markdown(config: Mapping) -> str:
    """Returns a page on the selected experiments: costs per rule, versions, licences.

    Args:
        config: The merged configuration, defaults filled in.
    """
    heads = read_heads(targets.made(config))
    seeds = ", ".join(map(str, config["seeds"]))
    parts = [
        "### What this run rests on",
        f"{len(heads)} jobs, calibration seeds {seeds}, device {config['device']}.",
        "#### Cost",
        "Of the computing itself, without starting Python and loading the model. Memory is the "
        "peak in MiB, with the weights: of the device's allocator on a GPU, the resident set on a "
        "CPU.",
        tables.pipe_table(stages(heads)),
        "#### Versions",
        tables.pipe_table(versions(heads.values())),
        "#### Licences",
        tables.pipe_table(licences(config)),
    ]
    return "\n\n".join(parts) + "\n"


def read_heads(paths: Iterable[str]) -> dict[str, dict]:
    """Reads headers, with what a job cost where the artifact or Snakemake's benchmark says so.

    Returns:
        By path: the header, and ``cost`` as `costs.read` returns it.
    """
    heads = {}
    for path in paths:
        head, cost = costs.read(path)
        heads[path] = {**head, "cost": cost}
    return heads


def stages(heads: Mapping[str, Mapping]) -> pd.DataFrame:
    """Adds up what the jobs of each rule cost.

    Args:
        heads: What `read_heads` returned.

    Returns:
        Text per rule: its jobs, their seconds together and of the longest, peak memory, GPU-hours,
        devices; empty cells where the jobs of a rule measure nothing.
    """
    rows = []
    for rule in dict.fromkeys(head["rule"] for head in heads.values()):
        listed = [head["cost"] for head in heads.values() if head["rule"] == rule]
        known = [cost for cost in listed if cost]
        seconds = [cost["seconds"] for cost in known]
        on_gpu = sum(c["seconds"] for c in known if c["device"].startswith("cuda"))
        rows.append(
            {
                "Rule": rule,
                "Jobs": str(len(listed)),
                "Seconds": f"{math.fsum(seconds):.1f}" if known else "",
                "Longest": f"{max(seconds):.1f}" if known else "",
                "Peak memory": f"{max(c['peak_memory_mb'] for c in known):.0f}" if known else "",
                "GPU-hours": f"{on_gpu / 3600:.3f}" if known else "",
                "Device": ", ".join(sorted({cost["device"] for cost in known})),
            }
        )
    return pd.DataFrame(rows)


def versions(heads: Iterable[Mapping]) -> pd.DataFrame:
    """Returns each library, its version, and how many artifacts it made."""
    counts = Counter(item for head in heads for item in head["versions"].items())
    rows = sorted((name, version, str(n)) for (name, version), n in counts.items())
    return pd.DataFrame(rows, columns=["Library", "Version", "Artifacts"])


def licences(config: Mapping) -> pd.DataFrame:
    """Returns the licence of each model and data set that the selected experiments use."""
    names = dict.fromkeys(targets.collect(config, targets.models))
    rows = [("model", name, config["models"][name].get("licence", "not stated")) for name in names]
    used = dict.fromkeys(name for name, _, _ in targets.collect(config, targets.datasets))
    for name in used:
        entry = config["datasets"].get(name)
        licence = entry.get("licence", "not stated") if entry else "built in"
        rows.append(("data set", name, licence))
    return pd.DataFrame(rows, columns=["Kind", "Name", "Licence"])
