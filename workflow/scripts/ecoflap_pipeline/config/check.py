"""Checks the whole configuration before any job starts. Needs no torch."""

import copy
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ecoflap.errors import message
from ecoflap.plugins import unknown
from ecoflap.schema import Misfit, fill, mistakes, problems, refuse
from ecoflap_pipeline.config.references import reference_problems
from ecoflap_pipeline.config.sections import SECTIONS, Config
from ecoflap_pipeline.points import DENSE
from ecoflap_pipeline.report import published

NUMBERS = {"int_type": (int,), "float_type": (int, float)}  # errors of pydantic
MERGE = "tag:yaml.org,2002:merge"
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
STAGES = ("calibrations", "scores", "allocations", "evaluations", "exports", "tables", "figures")
OTHER_TARGETS = ("all", "preflight", "download", "verify")
FILES = {"suites": "tasks"}  # where a section stands that has no file of its own
LONGEST = 100  # letters of a name: paths have several
RESERVED = {"variants": (DENSE,), "experiments": (*OTHER_TARGETS, *STAGES)}


# libyaml is fast; PyYAML reads all that Snakemake does, which is a little more ({a:, b: 1}).
READERS = (yaml.CSafeLoader, yaml.SafeLoader)


def _twice(text: str) -> list[tuple[str, int]]:
    """Returns the keys that a mapping of a YAML text has twice, and the line of that mapping."""
    for reader in READERS:
        try:
            return list(_repeated(yaml.compose(text, reader), set()))
        except yaml.YAMLError:
            continue
    return []  # Snakemake has told why


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yields what `_twice` returns, of a node that is not among those `seen`."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    children = node.value
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in children if isinstance(key, yaml.ScalarNode)]
        for tag, key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            if tag != MERGE:
                yield key, node.start_mark.line + 1
        children = [value for _, value in children]
    for child in children:
        yield from _repeated(child, seen)


def files_problems(files: Iterable[str | Path]) -> Iterator[str]:
    """Yields what is wrong with the text of configuration files.

    Args:
        files: The files that were read.
    """
    for file in files:
        for key, line in _twice(Path(file).read_text(encoding="utf-8")):
            yield message(
                f"{file}: '{key}' stands twice in the mapping that begins at line {line}",
                "each name once",
                "Rename or remove one of them.",
            )


def check(
    config: dict,
    root: Path,
    files: Iterable[str | Path] = (),
    given: Mapping = MappingProxyType({}),
) -> None:
    """Fills defaults in and checks everything that can be checked before a job starts.

    Args:
        config: The merged configuration; changed in place.
        root: The folder of the project.
        files: The files that it was merged from.
        given: What the command line says of it; Snakemake reads each number in a list or in a
            mapping there as text.

    Raises:
        ConfigError: naming all problems at once.
    """
    found = list(files_problems(files))
    found += _entry_problems("config", Config, config, given)
    _find_shipped(config.get("models"), root)
    for section in ("models", "experiments"):
        found += _fill_alike(section, config.get(section))
    for section in SECTIONS:
        found += _section_problems(section, config.get(section), given.get(section))
    found += _unnameable("config", config)
    if all(isinstance(problem, Misfit) for problem in found):
        found += reference_problems(config)
    published_at = root / "workflow" / "resources" / "published"
    refuse(found or published.problems(config, published_at), "the configuration has")


def _section_problems(section: str, content: object, given: object) -> Iterator[str]:
    if not isinstance(content, dict) or not content:
        yield message(
            f"config: section '{section}' is missing or empty",
            "a mapping with at least one entry",
            f"See config/{FILES.get(section, section)}.yaml.",
        )
    elif section == "plotting":
        yield from _entry_problems(section, SECTIONS[section], content, given)
    else:
        yield from _id_problems(section, content)
        for name, entry in content.items():
            part = _at(given, [name])
            yield from _entry_problems(f"{section}.{name}", SECTIONS[section], entry, part)


def _entry_problems(place: str, model: Any, content: Any, given: Any) -> list[str]:
    """Reads numbers, fills defaults in, and returns what is wrong then."""
    for mistake in mistakes(model, content) if given else ():
        seen, path = mistake.error["input"], mistake.path
        if mistake.error["type"] in NUMBERS and isinstance(seen, str) and _at(given, path) == seen:
            number = _yaml(seen)
            if type(number) in NUMBERS[mistake.error["type"]]:
                _at(content, path[:-1])[path[-1]] = number
    fill(model, content)
    return list(problems(model, content, place))


def _at(content: Any, path: Iterable[str | int]) -> Any:
    """Returns what lies at a path of keys and places; None if nothing does."""
    for key in path:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _fill_alike(section: str, content: object) -> Iterator[str]:
    """Gives each entry that is ``like`` another the keys of that one which it has not itself."""
    entries = content if isinstance(content, dict) else {}
    alike = {name: e for name, e in entries.items() if isinstance(e, dict) and "like" in e}
    for name, entry in alike.items():
        other = entry.pop("like")
        place, known = f"{section}.{name}.like", [each for each in entries if each not in alike]
        if not isinstance(other, str):
            yield message(f"{place}: {other!r}", f"one of {', '.join(known)}", "Name an entry.")
        elif other not in known:
            yield f"{place}: " + unknown(f"{section.removesuffix('s')} with all keys", other, known)
        else:
            entries[name] = {**copy.deepcopy(entries[other]), **entry}


def _find_shipped(models: object, root: Path) -> None:
    """Finds the checkpoints that come with the project where Snakemake runs in another folder."""
    for entry in models.values() if isinstance(models, dict) else ():
        source = entry.get("source") if isinstance(entry, dict) else None
        if not isinstance(source, dict) or not isinstance(folder := source.get("folder"), str):
            continue
        if not Path(folder).exists() and (root / folder).is_dir():
            source["folder"] = str(root / folder)


PATHS = ("folder", "path", "file", "data_folders", "environments")  # keys of what names files


def _unnameable(place: str, content: object, *, named: bool = False) -> Iterator[str]:
    """Yields the paths that this machine cannot name."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _unnameable(f"{place}.{key}", value, named=named or key in PATHS)
    elif isinstance(content, str) and named:
        if "\0" in content:
            yield message(f"{place}: {content!r}", "a path without a NUL", "Remove it.")
        try:
            os.fsencode(content)
        except UnicodeEncodeError:
            yield message(
                f"{place}: the locale ({sys.getfilesystemencoding()}) cannot name {content!a}",
                "paths that the locale has letters for",
                "Set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8.",
            )


def _id_problems(section: str, content: Mapping) -> Iterator[str]:
    for name in content:
        if not (isinstance(name, str) and ID.fullmatch(name) and len(name) <= LONGEST):
            yield message(
                f"{section}: the name {name!r} cannot be part of a path",
                "lower-case letters and digits, separated by single hyphens, at most "
                f"{LONGEST} characters",
                "Rename the entry, and quote it if it is a number.",
            )
        if name in RESERVED.get(section, ()):
            yield message(
                f"{section}: the name '{name}' is taken by the workflow",
                "any other name",
                "Rename the entry.",
            )
