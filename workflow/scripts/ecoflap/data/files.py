"""Reads the annotation files of data sets, with errors that name file and key."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ecoflap.errors import DataError, message
from ecoflap.registry import suggestion


def path_of(source: Mapping, key: str) -> Path:
    """Returns the path of a file that a data set's split names.

    Args:
        source: ``folder``, and ``files`` of the split.
        key: Which of the files.

    Raises:
        DataError: if it is not named or not there.
    """
    files = source.get("files", {})
    if key not in files:
        raise DataError(
            message(
                f"no '{key}' among the files of the split ({', '.join(files) or 'none'})",
                f"the file that this layout calls '{key}'",
                "Name it in config/datasets.yaml.",
            )
        )
    path = folder_of(source) / files[key]
    if not path.exists():
        raise DataError(
            message(f"{path} is missing", f"'{key}' of this data set", "Put it there, or correct.")
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
            message(
                f"no folder '{folder}'",
                "the folder that holds this data set",
                "Put the data there, or name their place under data_folders.",
            )
        )
    return Path(folder)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: if it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error) from error


def read_json_lines(path: Path) -> list[dict]:
    """Reads a file with a JSON object per line.

    Raises:
        DataError: if a line is no JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        message(f"{path} is no JSON ({error})", "a whole file", "Copy or download it again.")
    )


def take(entry: Any, key: str, path: Path) -> Any:
    """Returns an entry's value.

    Raises:
        DataError: if it has none, naming the file and the nearest key.
    """
    if isinstance(entry, Mapping) and key in entry:
        return entry[key]
    known = list(entry) if isinstance(entry, Mapping) else []
    raise missing("key", key, f"an entry of {path}", known)


def missing(kind: str, key: str, place: str, known: Iterable[str]) -> DataError:
    """Returns the error for a key or column that is not there."""
    known = list(known)
    return DataError(
        message(
            f"no {kind} '{key}' in {place}",
            ", ".join(known) or "none is there",
            suggestion(key, known) or "Check that the data set has the layout that it is said to.",
        )
    )
