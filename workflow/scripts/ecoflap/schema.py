"""Settings that a user writes, as typed models, and the sentences that their mistakes become.

A key that may be left out has the type of what it holds and the default None: an explicit null is
a mistake. Needs no torch.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import isclass
from itertools import chain
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from ecoflap.errors import ConfigError, message
from ecoflap.plugins import Registry, suggestion, unknown

BOUNDS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} of them",
    "max_length": "at most {} of them",
}
PLAIN = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Any: "anything",
}


@dataclass(frozen=True)
class Told:
    """What a type allows, in words, or the names that it allows."""

    text: str = ""
    names: tuple[str, ...] = ()


class _MisfitError(ValueError):
    """Holds the problems of an entry whose keys are right, each for itself."""


class Entry(BaseModel):
    """An entry of a section, or a mapping in one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    KIND: ClassVar[str] = ""  # the key that says which of its kinds an entry is
    KINDS: ClassVar[dict[str, type["Entry"]]] = {}  # they add themselves
    NEEDED: ClassVar[tuple[str, ...]] = ()  # in words, where the kinds do not need the same keys
    ELSEWHERE: ClassVar[str] = "Remove it."  # what to do with a key of another kind

    def __init_subclass__(cls, kind: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind:
            cls.KINDS[kind] = cls

    @classmethod
    def of(cls, content: Mapping) -> type["Entry"]:
        """Returns the model of an entry's kind; this one where the kind is not known."""
        name = content.get(cls.KIND)
        return cls.KINDS.get(name, cls) if isinstance(name, str) else cls

    def mistakes(self) -> Iterator[str]:
        """Yields what of an entry does not fit the rest of it."""
        yield from ()

    @model_validator(mode="after")
    def _fits(self) -> "Entry":
        if found := list(self.mistakes()):
            raise _MisfitError(*found)
        return self


def key(about: str, default: object = ..., alias: str | None = None) -> Any:
    """Returns a field that is needed, or that is filled in.

    Args:
        about: What it means.
        default: What is filled in.
        alias: The key, where it is no name for Python.
    """
    return Field(default, description=about, alias=alias)


def free(about: str, usual: Any = None) -> Any:
    """Returns a field that may be left out; `usual` says what holds then, in the documents."""
    return Field(None, description=about, json_schema_extra={"usual": usual})


def _once(values: list) -> list:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError  # without words: what is allowed says it
    return values


ONCE = AfterValidator(_once)
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


def form(pattern: str, told: str) -> Any:
    """Returns the type of texts of a form, which `told` says in words."""
    return Annotated[str, StringConstraints(pattern=pattern), Told(told)]


Text = form(r"\S", "text of at least 1 character")
Name = Annotated[str, Told("a name")]


def known(kind: str, names: Iterable[str]) -> Any:
    """Returns the type of names that a registry has."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown(kind, name, [*names, *elsewhere]))
        return name

    elsewhere = ["a module with a dot, my_package.my_module"] if isinstance(names, Registry) else []
    return Annotated[str, AfterValidator(check), Told(names=tuple(names))]


def listed(item: Any, least: int = 1, most: int | None = None) -> Any:
    """Returns the type of lists in which each entry stands once."""
    return Annotated[list[item], Field(min_length=least, max_length=most), ONCE]


def fields(model: type[Entry]) -> dict[str, Any]:
    """Returns the fields of a model by their keys."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _chosen(model: Any, content: object) -> Any:
    """Returns the model of the kind that an entry is; any other type as it is."""
    if isclass(model) and issubclass(model, Entry) and isinstance(content, Mapping):
        return model.of(content)
    return model


def fill(model: Any, content: object) -> None:
    """Fills the defaults of an entry in; there are none of other types."""
    model = _chosen(model, content)
    if isinstance(content, dict) and isclass(model) and issubclass(model, Entry):
        for name, field in fields(model).items():
            if not field.is_required() and field.default is not None:
                content.setdefault(name, copy.deepcopy(field.default))


def allowed(kind: Any, metadata: Iterable = (), style: str = "{}") -> str:
    """Says what a type allows.

    Args:
        kind: The type.
        metadata: Its bounds.
        style: How names are written.
    """
    kind, metadata = _bare(kind, metadata)
    told = next((each for each in metadata if isinstance(each, Told)), None)
    origin, args = get_origin(kind), get_args(kind)
    if told or origin is Literal:
        return (told and told.text) or ", ".join(map(style.format, told.names if told else args))
    if origin in (Union, UnionType):
        return ", or ".join(allowed(each, style=style) for each in args)
    if origin in (list, dict):
        what = "a list" if origin is list else "a mapping"
        parts = [f"{what} (each {allowed(args[-1], style=style)})"]
    elif isclass(kind) and issubclass(kind, Entry):
        keys = fields(kind)
        always = [name for name, field in keys.items() if field.is_required()]
        needed = kind.NEEDED or always or keys
        parts = [f"a mapping with {', '.join(map(style.format, needed))}"]
    else:
        parts = [PLAIN[kind]]
    for each in metadata:
        found = {name: getattr(each, name, None) for name in BOUNDS}
        parts += [BOUNDS[name].format(limit) for name, limit in found.items() if limit is not None]
        parts += ["each entry once"] if each is ONCE else []
    return ", ".join(parts).replace("at least 1 of them", "at least one entry")


def _bare(kind: Any, metadata: Iterable = ()) -> tuple[Any, tuple]:
    """Takes a type out of its annotations."""
    metadata = tuple(metadata)
    while get_origin(kind) is Annotated:
        kind, *own = get_args(kind)
        own = [each.metadata if isinstance(each, FieldInfo) else [each] for each in own]
        metadata = (*chain(*own), *metadata)
    return kind, metadata


class Misfit(str):
    """A problem of an entry whose keys are right, each for itself."""


class Mistake(NamedTuple):
    """A value that a model refuses.

    Attributes:
        path: Keys and places that lead to it.
        error: What pydantic says.
        kind: The type that it should have.
        metadata: The bounds of that type.
        about: What its key means.
        whole: Whether it has none of several types.
    """

    path: tuple
    error: Mapping
    kind: Any
    metadata: tuple
    about: str
    whole: bool


def mistakes(kind: Any, content: object) -> list[Mistake]:
    """Returns all that is wrong with a content.

    Args:
        kind: A model, or another type.
        content: What a user wrote.
    """
    kind = _chosen(kind, content)
    try:
        _validator(kind).validate_python(content, strict=True)
    except ValidationError as error:
        found = [_located(kind, each) for each in error.errors(include_url=False)]
    else:
        return []
    deep = [each.path for each in found if not each.whole]
    kept = {}
    for number, each in enumerate(found):  # of what fits none of several types: the nearest, once
        if not each.whole:
            kept[number] = each
        elif not any(path[: len(each.path)] == each.path for path in deep):
            kept.setdefault(each.path, each)
    return list(kept.values())


@cache
def _validator(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _located(kind: Any, error: Mapping) -> Mistake:
    """Follows the place of an error through the types, past the names of types in it."""
    path, parts, metadata, about, whole = [], list(error["loc"]), (), "", False
    while parts:
        kind, metadata = _bare(kind, metadata)
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            parts.pop(0)
            if whole := not parts:
                break
            listed_at = isinstance(parts[0], int) and parts[1:2] != ["[key]"]
            wanted = list if listed_at else dict
            kind = next(each for each in args if get_origin(_bare(each)[0]) is wanted)
            metadata = ()
            continue
        part = parts.pop(0)
        if parts == ["[key]"]:
            kind, metadata = _bare(args[0])
            break
        path.append(part)
        if isclass(kind) and issubclass(kind, Entry):
            field = fields(kind).get(part)
            if field is None:
                break
            kind, metadata, about = field.annotation, tuple(field.metadata), field.description
        else:
            kind, metadata = args[-1], ()
    return Mistake(tuple(path), error, kind, metadata, about, whole)


def problems(model: Any, content: object, place: str = "") -> Iterator[str]:
    """Yields all that is wrong with an entry, each with its place, what is allowed, what to do.

    Args:
        model: An `Entry`, or another type.
        content: What a user wrote.
        place: Where it stands.
    """
    found = mistakes(model, content)
    unclear = any(mistake.path == (getattr(model, "KIND", ""),) for mistake in found)
    for mistake in found:
        names = [*([place] if place else []), *map(str, mistake.path)]
        said = mistake.error.get("ctx", {}).get("error")
        if isinstance(said, _MisfitError):
            yield from (Misfit(_at(names) + each) for each in said.args)
        elif said and said.args:
            yield f"{_at(names)}{said}"
        elif mistake.error["type"] not in ("extra_forbidden", "invalid_key"):
            yield _told(names, mistake)
        elif not (unclear and model.KINDS and len(mistake.path) == 1):  # else told later
            yield _unused(names, mistake, model.KINDS if len(mistake.path) == 1 else {})


def _at(names: list[str]) -> str:
    return f"{'.'.join(names)}: " if names else ""


def _unused(names: list[str], mistake: Mistake, others: Mapping) -> str:
    """Says that a key is not known, or which other kinds of entry use it."""
    name, model = names[-1], mistake.kind
    if use := [other for other, kind in others.items() if name in fields(kind)]:
        only = f"nothing here: {name} is for {', '.join(use)} alone"
        return message(f"{_at(names)}{mistake.error['input']!r}", only, model.ELSEWHERE)
    keys = list(fields(model))
    remedy = suggestion(name, keys) or "Remove it."
    return message(f"{_at(names[:-1])}unknown key {name!r}", ", ".join(keys), remedy)


def _told(names: list[str], mistake: Mistake) -> str:
    what, about = allowed(mistake.kind, mistake.metadata), mistake.about
    error, seen = mistake.error["type"], mistake.error["input"]
    if error == "missing":
        missing = f"{_at(names[:-1])}no {names[-1]}"
        return message(missing, what, f"Add the key. {names[-1]}: {about}")
    if mistake.error["loc"][-1:] == ("[key]",):
        return message(f"{_at(names)}the name {seen!r}", what, "Rename it.")
    near = suggestion(seen, get_args(mistake.kind)) if error == "literal_error" else ""
    if number := _meant(mistake.kind, seen):
        near = f"YAML reads text here: write {number}."
    return message(f"{_at(names)}{seen!r}", what, near or about or "Correct the value.")


def _meant(kind: Any, seen: object) -> str | None:
    """Returns the number that a text such as 1e-4 or "5" was meant to be, as YAML reads numbers."""
    try:
        number = repr(kind(seen)) if kind in (float, int) and isinstance(seen, str) else None
    except ValueError:
        return None
    return number and (number if "." in number else number.replace("e", ".0e"))


def refuse(found: Iterable[str], what: str) -> None:
    """Raises all problems at once.

    Args:
        found: The problems.
        what: What has them, such as ``the configuration has``.

    Raises:
        ConfigError: if there is any.
    """
    if found := list(dict.fromkeys(found)):
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise ConfigError(f"{what} {len(found)} problem(s):\n{listed}")
