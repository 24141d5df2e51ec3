"""Checks the whole configuration before any job starts. Needs no torch."""

import copy
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import jsonschema
import yaml

from ecoflap.errors import ConfigError, message
from ecoflap.plugins import suggestion, unknown
from ecoflap_pipeline.config.references import reference_problems
from ecoflap_pipeline.points import DENSE
from ecoflap_pipeline.report import published

SECTIONS = (
    "models",
    "datasets",
    "calibrations",
    "scores",
    "variants",
    "finetuning",
    "tasks",
    "suites",
    "experiments",
    "plotting",
)
MERGE = "tag:yaml.org,2002:merge"
TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "at most {}",
    "minLength": "text of at least {} character",
    "minProperties": "a mapping with at least {} entry",
}
COUNTS = {
    "minItems": "at least one entry",
    "maxItems": "at most {} of them",
    "uniqueItems": "each entry once",
}


def _properties(
    validator: jsonschema.Validator, properties: Mapping, instance: object, _schema: Mapping
) -> Iterator[jsonschema.ValidationError]:
    """Checks the keys of a mapping; jsonschema itself does not say which key may not be there."""
    for key, schema in properties.items():
        if isinstance(instance, Mapping) and key in instance:
            entry = {"not": {}} if schema is False else schema
            yield from validator.descend(instance[key], entry, path=key, schema_path=key)


def _pattern(
    validator: jsonschema.Validator, pattern: str, instance: object, _schema: Mapping
) -> Iterator[jsonschema.ValidationError]:
    """Checks a form to the end of the text: a line feed there would become part of a path."""
    if validator.is_type(instance, "string"):
        found = re.search(pattern, instance)
        if not found or (pattern.endswith("$") and found.end() < len(instance)):
            yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _min_length(
    _: jsonschema.Validator, least: int, instance: object, _schema: Mapping
) -> Iterator[jsonschema.ValidationError]:
    """Checks that a text has something to read."""
    if isinstance(instance, str) and len(instance.strip()) < least:
        yield jsonschema.ValidationError(f"{instance!r} is empty")


# JSON calls 1.0 an integer; in a path it would be another seed than 1.
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"properties": _properties, "pattern": _pattern, "minLength": _min_length},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
STAGES = ("calibrations", "scores", "allocations", "evaluations", "exports", "tables", "figures")
OTHER_TARGETS = ("all", "preflight", "download", "verify")
RESERVED = {"variants": (DENSE,), "experiments": (*OTHER_TARGETS, *STAGES)}


class _Keys:
    """Remembers the keys that a mapping has twice, of which the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != MERGE]
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            self.twice.append((key, node.start_mark.line + 1))
        return super().construct_mapping(node, deep)


class _Fast(_Keys, yaml.CSafeLoader):
    """Reads most YAML."""


class _Whole(_Keys, yaml.SafeLoader):
    """Reads all that Snakemake does, which is a little more (``{a:, b: 1}``)."""


def _twice(text: str) -> list[tuple[str, int]]:
    """Returns the keys that a mapping of a YAML text has twice, and the line of that mapping."""
    for kind in (_Fast, _Whole):
        loader = kind(text)
        loader.twice = []
        try:
            loader.get_single_data()
        except yaml.YAMLError:
            continue
        return loader.twice
    return []  # Snakemake has told why


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
    schemas: Path,
    files: Iterable[str | Path] = (),
    given: Mapping = MappingProxyType({}),
) -> None:
    """Fills defaults in and checks everything that can be checked before a job starts.

    Args:
        config: The merged configuration; changed in place.
        schemas: Folder with one schema per section.
        files: The files that it was merged from.
        given: What the command line says of it; Snakemake reads each number in a list or in a
            mapping there as text.

    Raises:
        ConfigError: naming all problems at once.
    """
    problems = list(files_problems(files))
    _read_numbers(config, given, _schema(schemas, "config"))
    problems += _schema_problems("config", config, _schema(schemas, "config"))
    _find_shipped(config.get("models"), schemas.parents[1])
    for section in ("models", "experiments"):
        problems += _fill_alike(section, config.get(section))
    for section in SECTIONS:
        content = config.get(section)
        if not isinstance(content, dict) or not content:
            problems.append(
                message(
                    f"config: section '{section}' is missing or empty",
                    "a mapping with at least one entry",
                    f"See config/{section}.yaml.",
                )
            )
            continue
        _read_numbers(content, given.get(section), _schema(schemas, section))
        problems += _not_finite(section, content)
        problems += _schema_problems(section, content, _schema(schemas, section))
        if section != "plotting":
            problems += _id_problems(section, content)
    problems += _unnameable("config", config)
    if not problems:
        problems += reference_problems(config)
    if not problems:
        problems += published.problems(config, schemas.parent / "resources" / "published")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"the configuration has {len(set(problems))} problem(s):\n{listed}")


def _read_numbers(content: object, given: object, schema: Mapping) -> None:
    """Replaces texts from the command line by the numbers that the schema wants there."""
    if not given:
        return
    for error in list(Validator(schema).iter_errors(content)):
        seen, path = error.instance, error.absolute_path
        if error.validator == "type" and isinstance(seen, str) and _at(given, path) == seen:
            number = _yaml(seen)
            if Validator(error.schema).is_type(number, error.validator_value):
                _at(content, list(path)[:-1])[path[-1]] = number


def _at(content: object, path: Iterable[str | int]) -> object:
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
        if other in alike or other not in entries:
            known = [name for name in entries if name not in alike]
            kind = f"{section.removesuffix('s')} with all keys"
            yield f"{section}.{name}.like: " + unknown(kind, other, known)
        else:
            entries[name] = {**copy.deepcopy(entries[other]), **entry}


def _find_shipped(models: object, root: Path) -> None:
    """Finds the checkpoints that come with the project where Snakemake runs in another folder."""
    for entry in models.values() if isinstance(models, dict) else ():
        source = entry.get("source") if isinstance(entry, dict) else None
        folder = source.get("folder") if isinstance(source, dict) else None
        if isinstance(folder, str) and not Path(folder).exists() and (root / folder).is_dir():
            source["folder"] = str(root / folder)


def _not_finite(place: str, content: object) -> Iterator[str]:
    """Yields the numbers that are NaN or infinite: no bound of a schema holds them back."""
    if isinstance(content, Mapping | list):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _not_finite(f"{place}.{key}", value)
    elif isinstance(content, float) and not math.isfinite(content):
        yield message(f"{place}: {content}", "a finite number", "Correct the value.")


PATHS = ("folder", "path", "file", "data_folders", "environments")  # keys of what names files


def _unnameable(place: str, content: object, *, named: bool = False) -> Iterator[str]:
    """Yields the paths that the locale of this machine has no bytes for."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _unnameable(f"{place}.{key}", value, named=named or key in PATHS)
    elif isinstance(content, str) and named:
        try:
            os.fsencode(content)
        except UnicodeEncodeError:
            yield message(
                f"{place}: the locale ({sys.getfilesystemencoding()}) cannot name {content!a}",
                "paths that the locale has letters for",
                "Set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8.",
            )


@cache
def _schema(folder: Path, section: str) -> dict:
    text = (folder / f"{section}.schema.yaml").read_text(encoding="utf-8")
    return yaml.load(text, yaml.CSafeLoader)


def _schema_problems(section: str, content: Mapping, schema: dict) -> Iterator[str]:
    _fill_defaults(content, schema)
    for error in Validator(schema).iter_errors(content):
        place = ".".join([section, *(str(part) for part in error.absolute_path)])
        yield _explain(place, error)


def _fill_defaults(content: object, schema: Mapping) -> None:
    if not isinstance(content, dict):
        return
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            content.setdefault(key, copy.deepcopy(part["default"]))
    entries = schema.get("additionalProperties")
    if isinstance(entries, dict):
        for entry in content.values():
            _fill_defaults(entry, entries)


def _explain(place: str, error: jsonschema.ValidationError) -> str:
    """Turns a schema violation into value, allowed, remedy."""
    schema, seen = error.schema, error.instance
    if error.validator == "not" and not error.validator_value:
        allowed = schema.get("description", "nothing: this kind does not use it")
        return message(f"{place}: {seen!r}", allowed, "Remove it.")
    about, limit = schema.get("description", "").rstrip("."), error.validator_value
    told = about and f"{about}."
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        extra = [key for key in seen if key not in known]
        remedy = " ".join(filter(None, (suggestion(key, known) for key in extra)))
        return message(
            f"{place}: unknown key {', '.join(repr(key) for key in extra)}",
            ", ".join(known),
            remedy or "Remove it.",
        )
    if error.validator == "enum":
        allowed = ", ".join(map(str, schema["enum"]))
        return message(
            f"{place}: {seen!r}", allowed, suggestion(seen, schema["enum"]) or "Choose one."
        )
    if error.validator == "required":
        missing = [key for key in limit if key not in seen]
        schemas = {key: schema.get("properties", {}).get(key) for key in missing}
        described = [f"{k}: {part['description']}" for k, part in schemas.items() if part]
        allowed = " ".join(described).rstrip(".") or about or f"an entry with {', '.join(limit)}"
        return message(f"{place}: no {', '.join(missing)}", allowed, "Add the key.")
    if error.validator == "dependentRequired":
        pairs = "; ".join(f"{key} with {', '.join(also)}" for key, also in limit.items())
        return message(f"{place}: {error.message}", pairs, "Add the key.")
    if error.validator in COUNTS:
        rule = COUNTS[error.validator].format(error.validator_value)
        return message(f"{place}: {seen!r}", rule, told or "Correct the list.")
    if error.validator == "pattern":
        allowed = about or f"text of the form {limit}"
        return message(f"{place}: {seen!r}", allowed, f"It must match {limit}.")
    if error.validator == "type" and (number := _meant(limit, seen)):
        return message(f"{place}: {seen!r}", "a number", f"YAML reads text here: write {number}.")
    allowed = about
    if error.validator == "type" and isinstance(limit, str):
        needed = ", ".join(schema.get("required", ()))
        allowed = f"{TYPES[limit]} with {needed}" if needed else TYPES[limit]
    elif error.validator in BOUNDS:
        allowed = BOUNDS[error.validator].format(limit)
    remedy = told if told and allowed != about else "Correct the value."
    return message(f"{place}: {seen!r}", allowed, remedy)


def _meant(kind: str | list, seen: object) -> str | None:
    """Returns the number that a text such as 1e-4 was meant to be, as YAML reads numbers."""
    try:
        number = repr(float(seen)) if kind == "number" and isinstance(seen, str) else None
    except ValueError:
        return None
    return number and (number if "." in number else number.replace("e", ".0e"))


def _id_problems(section: str, content: Mapping) -> Iterator[str]:
    for name in content:
        if not (isinstance(name, str) and ID.fullmatch(name)):
            yield message(
                f"{section}: the name {name!r} cannot be part of a path",
                "lower-case letters and digits, separated by single hyphens",
                "Rename the entry, and quote it if it is a number.",
            )
        if name in RESERVED.get(section, ()):
            yield message(
                f"{section}: the name '{name}' is taken by the workflow",
                "any other name",
                "Rename the entry.",
            )
