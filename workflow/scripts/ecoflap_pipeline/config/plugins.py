"""Checks that modules of other packages, named with a dot, are there and are plug-ins."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecoflap.errors import message
from ecoflap.plugins import is_dotted
from ecoflap_pipeline.code import SCRIPTS, module_file

CONTRACTS = {
    "criterion": ("UPDATES_WEIGHTS", "NEEDS_INPUTS", "statistics", "prune"),
    "estimator": ("compute",),
}


def plugin_problems(config: Mapping) -> Iterator[str]:
    """Yields the modules that variants and scores name and that are no plug-ins.

    Args:
        config: The merged configuration.
    """
    for section, key in (("variants", "criterion"), ("scores", "estimator")):
        for name, entry in config[section].items():
            module = entry.get(key)
            if is_dotted(module):
                yield from _module_problems(f"{section}.{name}.{key}", module, CONTRACTS[key])


def _module_problems(place: str, module: str, contract: tuple[str, ...]) -> Iterator[str]:
    path = module_file(module, SCRIPTS, module.partition(".")[0])
    if path is None:
        yield message(
            f"{place}: no module '{module}'",
            "a module that Python finds",
            "Put the folder that its package lies in on PYTHONPATH.",
        )
        return
    try:
        names = _top_names(path)
    except SyntaxError as error:
        yield message(f"{place}: {path}, line {error.lineno}: {error.msg}", "Python", "Correct it.")
        return
    absent = [name for name in contract if name not in names]
    if absent and "*" not in names:  # what a star brings, only running it tells
        yield message(
            f"{place}: {path} has no {', '.join(absent)}",
            f"a module with {', '.join(contract)}",
            "CONTRIBUTING.md has an example to copy.",
        )


def _top_names(path: Path) -> set[str]:
    """Returns what a module defines or imports, without running it."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                each.id
                for target in targets
                for each in ast.walk(target)
                if isinstance(each, ast.Name)
            }
    return found
