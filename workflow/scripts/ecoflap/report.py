"""One HTML page with all that a run made and how: no script, no network, no second file."""

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ecoflap import costs, graph, targets


def page(config: Mapping, template: Path) -> str:
    """Renders the report on what the configuration selects.

    Args:
        config: The merged configuration, defaults filled in.
        template: The page as a Jinja template.
    """
    import jinja2

    heads = read_heads(targets.made(config))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        experiments=[_experiment(config, name) for name in config["run"]],
        stages=stages(heads).to_dict("records"),
        jobs=len(heads),
        dag=_image("svg+xml", graph.draw(heads, config).encode()),
        versions=_versions(heads.values()),
        licences=licences(config),
        seeds=config["seeds"],
        device=config["device"],
    )


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
        rule, jobs, seconds (of all jobs), longest (seconds), peak_memory_mb, gpu_hours, devices;
        empty cells where the jobs of a rule measure nothing.
    """
    rows = []
    for rule in dict.fromkeys(head["rule"] for head in heads.values()):
        listed = [head["cost"] for head in heads.values() if head["rule"] == rule]
        known = [cost for cost in listed if cost]
        seconds = [cost["seconds"] for cost in known]
        on_gpu = sum(c["seconds"] for c in known if c["device"].startswith("cuda"))
        rows.append(
            {
                "rule": rule,
                "jobs": len(listed),
                "seconds": f"{math.fsum(seconds):.1f}" if known else "",
                "longest": f"{max(seconds):.1f}" if known else "",
                "memory": f"{max(c['peak_memory_mb'] for c in known):.0f}" if known else "",
                "gpu_hours": f"{on_gpu / 3600:.3f}" if known else "",
                "devices": ", ".join(sorted({cost["device"] for cost in known})),
            }
        )
    return pd.DataFrame(rows)


def licences(config: Mapping) -> list[tuple[str, str, str]]:
    """Returns what is used: model or data set, its name, its licence."""
    names = dict.fromkeys(targets.collect(config, targets.models))
    found = [("model", n, config["models"][n].get("licence", "not stated")) for n in names]
    used = dict.fromkeys(name for name, _, _ in targets.collect(config, targets.datasets))
    for name in used:
        entry = config["datasets"].get(name)
        found.append(
            ("data set", name, entry.get("licence", "not stated") if entry else "built in")
        )
    return found


def _experiment(config: Mapping, name: str) -> dict[str, Any]:
    entry = config["experiments"][name]
    files = list(targets.outputs(config, name))
    shown = {"name": name, "title": entry["title"], "files": files, "table": "", "figure": ""}
    if entry["kind"] in targets.TABLES:
        shown["table"] = _html(Path(f"results/tables/{name}.md").read_text(encoding="utf-8"))
    else:
        shown["figure"] = _image("svg+xml", Path(f"results/figures/{name}.svg").read_bytes())
    shown["sources"] = list(
        targets.metrics(config, name) if entry["kind"] in targets.EVALUATED else ()
    )
    return shown


def _html(markdown: str) -> str:
    """Renders the Markdown of a table; raw HTML in it stays text."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)


def _image(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _versions(heads: Iterable[Mapping]) -> list[tuple[str, str, int]]:
    """Returns library, version, and how many artifacts it made."""
    counts = Counter(item for head in heads for item in head["versions"].items())
    return sorted((name, version, n) for (name, version), n in counts.items())
