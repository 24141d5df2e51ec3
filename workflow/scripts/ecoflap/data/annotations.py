"""Reads the annotation files of data sets, with errors that name file and key."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError
from ecoflap.plugins import suggestion

KINDS = {list: "a list", dict: "an object", str: "a text"}


@dataclass(frozen=True)
class Form:
    """What the splits of a layout name in config/datasets.yaml.

    Attributes:
        required: Keys that each split has.
        optional: Keys that it may have.
        examples: Those that decide which examples there are, the first that is named; the whole
            folder if none is.
        parts: The key that names a part of that file, or several with commas.
        columns: Fields of ``columns``.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    parts: str | None = None
    columns: tuple[str, ...] = ()


def named(source: Mapping, key: str) -> str:
    """Returns what a data set's split names.

    Args:
        source: ``files`` of the split.
        key: Which of them.

    Raises:
        DataError: if it is not named.
    """
    files = source.get("files", {})
    if key not in files:
        raise DataError(
            f"no '{key}' among the files of the split ({', '.join(files) or 'none'})",
            allowed=f"what this layout calls '{key}'",
            fix="Name it in config/datasets.yaml.",
        )
    return files[key]


def path_of(source: Mapping, key: str) -> Path:
    """Returns the path of a file that a data set's split names.

    Args:
        source: ``folder``, and ``files`` of the split.
        key: Which of the files.

    Raises:
        DataError: if it is not named or not there.
    """
    path = beneath(folder_of(source), named(source, key))
    if not path.exists():
        raise DataError(
            f"{path} is missing",
            allowed=f"'{key}' of this data set",
            fix="Put it there, or correct.",
        )
    return path


def folder_of(source: Mapping) -> Path:
    """Returns the folder of a data set.

    Raises:
        DataError: if it is not there.
    """
    folder = source.get("folder")
    if folder is None or not Path(folder).is_dir():
        raise DataError(
            f"no folder '{folder}'",
            allowed="the folder that holds this data set",
            fix="Put the data there, or name their place under data_folders.",
        )
    return Path(folder)


def images_of(source: Mapping) -> Path:
    """Returns the folder of a split's pictures: ``images`` of its files, or the data set's own.

    Raises:
        DataError: if it is not there.
    """
    return path_of(source, "images") if "images" in source.get("files", {}) else folder_of(source)


def picture_of(source: Mapping, image_id: Any) -> Picture:
    """Returns the picture whose name the pattern ``images`` of a split makes from its id.

    Raises:
        DataError: if there is no such pattern, or it does not fit the id.
    """
    pattern = named(source, "images")
    try:
        name = pattern.format(image_id=image_id)
        if pattern.format(image_id=0) == pattern.format(image_id=1):
            raise ValueError("it names one picture, whatever the id")
    except (LookupError, ValueError, AttributeError) as error:
        raise DataError(
            f"the pattern '{pattern}' of picture names does not fit {image_id!r} ({error!r})",
            allowed="a pattern with {image_id}, or {image_id:012d} for numbers of 12 digits",
            fix="Correct it in config/datasets.yaml.",
        ) from error
    return Picture(name, beneath(folder_of(source), name))


def read_json(path: Path, kind: type) -> Any:
    """Reads a JSON file that holds a list or an object.

    Raises:
        DataError: if it is no JSON, or holds something else.
    """
    return _checked(_parsed(read_text(path), path), kind, str(path))


def read_json_lines(path: Path) -> list[Any]:
    """Reads a file with a JSON value per line.

    Raises:
        DataError: if a line is no JSON.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [_parsed(line, f"line {number} of {path}") for number, line in lines if line.strip()]


def _parsed(content: str, place: Path | str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _damaged(place, "JSON", error) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object; of a key with two values one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [key for key, value in pairs if found[key] != value]
        if twice:
            raise ValueError(f"the key '{twice[0]}' has two values")
    return found


def read_text(path: Path) -> str:
    """Reads a file of text, without a byte order mark; each line ends in a line feed alone.

    Raises:
        DataError: if it is not UTF-8.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except ValueError as error:
        raise _damaged(path, "text in UTF-8", error) from error
    if "\0" in content:  # in UTF-16, which can be valid UTF-8, every other byte of English is 0
        raise _damaged(path, "text in UTF-8", "it has bytes that are 0")
    return content.replace("\r\n", "\n")


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text that have words; other separators than line feeds are of a line.

    Raises:
        DataError: as `read_text`.
    """
    return [line for line in read_text(path).split("\n") if line.strip()]


def read_pairs(path: Path, second: str) -> list[tuple[str, str]]:
    """Reads lines of a word and, after blanks or a tab, what belongs to it.

    Args:
        path: The file.
        second: What belongs to the word, for messages.

    Raises:
        DataError: as `read_text`, and if a line has a word alone.
    """
    pairs: list[tuple[str, str]] = []
    for line in read_lines(path):
        word, *rest = re.split(r"[ \t]+", line.strip(), maxsplit=1)
        if not rest:
            raise DataError(
                f"the line '{word}' of {path} has no {second}",
                allowed=f"lines of a word, a blank or tab, and a {second}",
                fix="Complete the line.",
            )
        pairs.append((word, rest[0]))
    return pairs


def _damaged(place: Path | str, what: str, error: Exception | str) -> DataError:
    return DataError(
        f"{place} is no {what} ({error})",
        allowed="a whole file",
        fix="Copy or download it again.",
    )


def _checked(value: Any, kind: Any, place: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
        raise DataError(
            f"{place} is {type(value).__name__}",
            allowed=KINDS.get(kind, "a text or a number"),
            fix="Check that the data set has the layout that it is said to.",
        )
    return value


def take(entry: Any, key: str, path: Path, kind: type = object) -> Any:
    """Returns an entry's value.

    Args:
        entry: An object of the file.
        key: Names the value.
        path: The file.
        kind: What the value must be.

    Raises:
        DataError: if it has none, naming the file and the nearest key, or one of another kind.
    """
    if isinstance(entry, Mapping) and key in entry:
        return _checked(entry[key], kind, f"'{key}' of an entry of {path}")
    known = list(entry) if isinstance(entry, Mapping) else []
    raise missing("key", key, f"an entry of {path}", known)


def take_text(entry: Any, key: str, path: Path) -> str:
    """Returns an entry's text without blanks around it; what is null is empty, and told as such.

    Raises:
        DataError: as `take`, and for what is no text.
    """
    return text(take(entry, key, path), f"'{key}' of an entry of {path}").strip()


def take_name(entry: Any, key: str, path: Path) -> str:
    """Returns an entry's name, such as that of a file.

    Raises:
        DataError: as `take`, and for what is no text or an empty one.
    """
    name = take(entry, key, path, str)
    if not name.strip():
        raise missing_value(f"'{key}' of an entry of {path}", "a name")
    return name


def take_id(entry: Any, key: str, path: Path) -> str | int:
    """Returns an entry's id, a text or a whole number.

    Raises:
        DataError: as `take`, and for anything else.
    """
    return _checked(take(entry, key, path), str | int, f"'{key}' of an entry of {path}")


def optional_text(entry: Mapping, key: str, path: Path) -> str:
    """Returns an entry's text, empty where it has none.

    Raises:
        DataError: for what is no text.
    """
    return text(entry.get(key), f"'{key}' of an entry of {path}")


def text(value: Any, place: str) -> str:
    """Returns a text or a number as text, null and NaN as an empty one.

    A byte order mark before it, which not all readers of tables take off, is no letter.

    Raises:
        DataError: for lists, objects, bytes, true and false.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(_checked(value, str | int | float, place)).removeprefix("\ufeff")


def missing_value(place: str, allowed: str) -> DataError:
    """Returns the error for a value that is empty, null or NaN."""
    return DataError(f"{place} is empty", allowed=allowed, fix="Complete it, or remove the entry.")


def missing(kind: str, key: str, place: str, known: Iterable[str]) -> DataError:
    """Returns the error for a key or column that is not there."""
    known = list(known)
    return DataError(
        f"no {kind} '{key}' in {place}",
        allowed=", ".join(known) or "none is there",
        fix=suggestion(key, known) or "Check that the data set has the layout that it is said to.",
    )
