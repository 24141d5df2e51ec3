"""The code that a rule stands on, hashed; and where it lies."""

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecoflap.errors import ConfigError

SCRIPTS = Path(__file__).parents[1]  # the folder of the rules' scripts, and of their packages
PACKAGES = tuple(path.parent.name for path in sorted(SCRIPTS.glob("*/__init__.py")))
# Modules that can change no number; the hash leaves them out with what they alone import. Settings
# are checked in them, and what is filled in there stands in the parameters of the rules.
NO_NUMBER = (
    "ecoflap/schema.py",
    "ecoflap/data/settings.py",
    "ecoflap/finetuning/settings.py",
    "ecoflap/plugins.py",
    "ecoflap/errors.py",
    "ecoflap/measure.py",
    "ecoflap/export/card.py",
    "ecoflap_pipeline/job.py",
)


def export_library() -> None:
    """Makes child processes import this copy of the package, not one installed elsewhere."""
    paths = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def code_of(scripts: Path, script: str, plugins: Iterable[str] = ()) -> dict:
    """Describes the code of a rule: its script, the modules it imports, and the plug-ins it loads.

    Snakemake does not notice an edited module; rules put this into ``params``.

    Args:
        scripts: The folder of the rules' scripts, and of the package.
        script: The rule's script.
        plugins: Dotted names of modules that the script imports by name.

    Returns:
        ``script``, ``plugins``, and ``hash``, which changes when any of these files does.
    """
    plugins = sorted(set(plugins))
    files = imported_files(scripts / script, scripts)
    for name in plugins:
        own = name.partition(".")[0]
        path = module_file(name, scripts, own)
        if path is None:
            raise ConfigError(
                f"no source file of the plug-in '{name}'",
                allowed="a module that Python finds",
                fix="Put the folder that its package lies in on PYTHONPATH.",
            )
        files |= imported_files(path, scripts, own)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"script": script, "plugins": plugins, "hash": digest.hexdigest()[:16]}


def imported_files(entry: Path, scripts: Path, own: str = "") -> set[Path]:
    """Returns the file and every module of these packages that it imports, directly or not.

    Modules imported by name at run time (plug-ins of a registry) are not seen.

    Args:
        entry: The file.
        scripts: The folder that these packages are in.
        own: Another package whose modules count: a plug-in's.
    """
    seen: set[Path] = set()
    left_out = {scripts / file for file in NO_NUMBER}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in seen or path in left_out:
            continue
        seen.add(path)
        state = path.stat()
        waiting += _imports(path, scripts, own, state.st_mtime_ns, state.st_size)
    return seen


def module_file(name: str, scripts: Path, own: str = "") -> Path | None:
    """Returns the source of a module of these packages or of a plug-in's.

    Args:
        name: Its dotted name.
        scripts: The folder that these packages are in.
        own: Another package whose modules count: a plug-in's.

    Returns:
        None for a module of any other package, and for one that is not there.
    """
    parts = name.split(".")
    folders = [scripts] if parts[0] in PACKAGES else map(Path, sys.path) if parts[0] == own else []
    return next(filter(None, (_source(folder, parts) for folder in folders)), None)


def _source(folder: Path, parts: Sequence[str]) -> Path | None:
    path = folder.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@functools.cache  # files are read for many rules; one that is edited has another time or size
def _imports(path: Path, scripts: Path, own: str, _mtime: int, _size: int) -> tuple[Path, ...]:
    """Returns the modules of these packages that a file imports; ``from a import b``: a and a.b."""
    found: list[Path | None] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            found += [module_file(alias.name, scripts, own) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            names = [base, *([*base, alias.name] for alias in node.names)]
            if node.level:  # relative
                found += [_source(path.parents[node.level - 1], name) for name in names if name]
            else:
                found += [module_file(".".join(name), scripts, own) for name in names]
    return tuple(filter(None, found))


def top_level(path: Path) -> Mapping[str, Any]:
    """Returns what a module defines or imports, without running it.

    Args:
        path: Its file.

    Returns:
        Names to the values that are written out, such as ``True``; to ``...`` for all others.

    Raises:
        SyntaxError: if it is not Python.
    """
    state = path.stat()
    return _top_level(path, state.st_mtime_ns, state.st_size)


def literal(module: str, name: str) -> Any:
    """Returns a value that is written out in a module, ``...`` for any other.

    Args:
        module: Its dotted name, of these packages or a plug-in's.
        name: What it is assigned to.
    """
    path = module_file(module, SCRIPTS, module.partition(".")[0])
    try:
        return top_level(path).get(name, ...) if path else ...
    except SyntaxError:
        return ...


@functools.cache
def _top_level(path: Path, _mtime: int, _size: int) -> Mapping[str, Any]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return dict(pair for node in tree.body for pair in _named(node))


def _named(node: ast.stmt) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, ...
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name, ...) for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for each in (name for target in targets for name in ast.walk(target)):
            if isinstance(each, ast.Name):
                yield each.id, _literal(node.value) if each in targets else ...


def _literal(value: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(value) if value else ...
    except ValueError:
        return ...
