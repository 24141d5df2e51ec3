"""Draws which rules' artifacts fed which, as the headers of the artifacts tell it."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt

from ecoflap import targets, verification

WIDTH, HEIGHT = 2.1, 0.9  # inches per column and row of boxes


def edges(heads: Mapping[str, Mapping], config: Mapping) -> set[tuple[str, str]]:
    """Returns pairs of rules, the first of which made what the second read.

    Args:
        heads: Headers by path.
        config: The merged configuration; its experiments read what no header tells.
    """
    found = {
        (verification.recognised(path)[1], head["rule"])
        for head in heads.values()
        for path in head.get("inputs", {})
        if verification.recognised(path)
    }
    return found | set(_drawn(config))


def _drawn(config: Mapping) -> Iterator[tuple[str, str]]:
    for name in config["run"]:
        kind = config["experiments"][name]["kind"]
        table = kind in targets.TABLES
        if table:
            yield "evaluate_model", "make_table"
            yield "prune_model", "make_table"
            if any(targets.finetuned(config, name)):
                yield "finetune_model", "make_table"
        for path in targets.figure_inputs(config, name) if not table else ():
            yield verification.recognised(path)[1], "plot_figure"


def levels(pairs: set[tuple[str, str]]) -> dict[str, int]:
    """Returns for each rule the length of the longest way to it, 0 for those that read nothing."""
    before = defaultdict(set)
    for first, second in pairs:
        before[second].add(first)
        before.setdefault(first, set())
    found: dict[str, int] = {}

    def level(rule: str) -> int:
        if rule not in found:
            found[rule] = 1 + max((level(one) for one in before[rule]), default=-1)
        return found[rule]

    for rule in sorted(before):
        level(rule)
    return found


def draw(heads: Mapping[str, Mapping], config: Mapping) -> str:
    """Draws the graph as SVG, each rule with the number of its jobs.

    Args:
        heads: Headers by path, one for each job.
        config: The merged configuration.
    """
    pairs = edges(heads, config)
    columns = defaultdict(list)
    for rule, level in sorted(levels(pairs).items()):
        columns[level].append(rule)
    jobs = Counter(head["rule"] for head in heads.values())
    for name in config["run"]:
        table = config["experiments"][name]["kind"] in targets.TABLES
        jobs["make_table" if table else "plot_figure"] += 1
    tallest = max(len(rules) for rules in columns.values())
    places = {
        rule: (level * WIDTH, (tallest / 2 - (row + 0.5) * tallest / len(rules)) * HEIGHT)
        for level, rules in columns.items()
        for row, rule in enumerate(rules)
    }
    settings = {"svg.hashsalt": "ecoflap", "svg.fonttype": "none", "font.size": 9}
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(WIDTH * len(columns), HEIGHT * (tallest + 0.4)))
        for first, second in sorted(pairs):
            axes.annotate(
                "",
                xy=places[second],
                xytext=places[first],
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#888888",
                    "shrinkA": 45,
                    "shrinkB": 45,
                    "connectionstyle": "arc3,rad=0.08",
                },
            )
        for rule, (x, y) in places.items():
            axes.text(
                x,
                y,
                f"{rule}\n{jobs[rule]} job{'s' if jobs[rule] != 1 else ''}",
                ha="center",
                va="center",
                bbox={"boxstyle": "round,pad=0.5", "fc": "#eef4fb", "ec": "#0072b2"},
            )
        axes.set_xlim(-WIDTH / 2, WIDTH * (len(columns) - 0.5))
        axes.set_ylim(-HEIGHT * (tallest + 0.4) / 2, HEIGHT * (tallest + 0.4) / 2)
        axes.set_axis_off()
        out = io.StringIO()
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()
