"""Writes the tables of config/README.md: ``python -m ecoflap_pipeline.config config/README.md``."""

import sys
from collections.abc import Iterable, Iterator
from inspect import isclass
from pathlib import Path
from typing import Any, get_args

from ecoflap.schema import Entry, allowed, fields
from ecoflap_pipeline.config.sections import SECTIONS, Config

BEGIN, END = "<!-- written by python -m ecoflap_pipeline.config -->\n", "<!-- end -->\n"
CODE = "`{}`"


def tables() -> str:
    """Returns one table per section, from the models that check it."""
    return "".join(map(_table, ["config", *SECTIONS], [Config, *SECTIONS.values()]))


def written(text: str) -> str:
    """Returns a document with the tables between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{tables()}\n{END}{rest.partition(END)[2]}"


def _table(section: str, model: Any) -> str:
    if not (isclass(model) and issubclass(model, Entry)):
        return f"\n### {section}\n\nName to {allowed(model)}.\n"
    head = "| key | allowed | default | meaning |\n|---|---|---|---|\n"
    return f"\n### {section}\n\n{model.__doc__}\n\n{head}{''.join(_rows(model, '', set()))}"


def _rows(model: type[Entry], start: str, shown: set[type]) -> Iterator[str]:
    """Yields a row per key, then those of the mappings in it that had none yet."""
    kinds = model.KINDS if len(model.KINDS) != 1 else {"the others": model, **model.KINDS}
    kinds = kinds or {"": model}
    shown.update(kinds.values())
    keys = [name for kind in kinds.values() for name in fields(kind)]
    for name in dict.fromkeys(keys):
        if name in SECTIONS and model is Config:
            continue
        of = {kind: fields(each)[name] for kind, each in kinds.items() if name in fields(each)}
        yield _row(f"{start}{name}", of, kinds)
        for nested, mark in _entries(next(iter(of.values())).annotation):
            if not any(issubclass(each, _plainest(nested)) for each in shown):
                yield from _rows(nested, f"{start}{name}{mark}.", shown)


def _plainest(model: type[Entry]) -> type[Entry]:
    """Returns the model that another one is made from: one of them is enough in a table."""
    *_, found = (each for each in model.__mro__ if issubclass(each, Entry) and each is not Entry)
    return found


def _row(name: str, of: dict[str, Any], kinds: Iterable[str]) -> str:
    field = max(of.values(), key=lambda each: len(each.description))
    needed = [kind for kind, each in of.items() if each.is_required()]
    free = [each for each in of.values() if not each.is_required()]
    usual = [each.default or (each.json_schema_extra or {}).get("usual") for each in free]
    default = next((f"{each}" for each in usual if each is not None), "")
    default = default if " " in default or not default else CODE.format(default)
    if needed:
        default = "needed" if len(needed) == len(of) else f"needed by {', '.join(needed)}"
    others = [kind for kind in kinds if kind not in of]
    only = f" For {', '.join(of)}." if others else ""
    if 0 < len(others) < len(of):
        only = f" Not for {', '.join(others)}."
    what = "; ".join(dict.fromkeys(allowed(e.annotation, e.metadata, CODE) for e in of.values()))
    return f"| `{name}` | {what} | {default} | {field.description}{only} |\n"


def _entries(kind: Any) -> list[tuple[type[Entry], str]]:
    """Returns the models that a type is made of, with the mark of a list."""
    if isclass(kind) and issubclass(kind, Entry):
        return [(kind, "")]
    return [(nested, "[]") for part in get_args(kind) for nested, _ in _entries(part)]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
