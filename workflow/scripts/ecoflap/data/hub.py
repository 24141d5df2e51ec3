"""Any data set of the Hugging Face hub, or files in its form, through a mapping of columns."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecoflap.data.files import missing
from ecoflap.data.pictures import Picture
from ecoflap.errors import DataError, message

if TYPE_CHECKING:
    from datasets import Dataset

# What the examples of a view are made of, each from a column of the same name or a mapped one.
FIELDS = {
    "vqa": ("image", "question", "answers"),
    "captions": ("image", "captions"),
    "text": ("text",),
    "classes": ("image", "label"),
    "pairs": ("left", "right", "text", "label"),
}
VIEWS = tuple(FIELDS)
OPTIONAL = ("id", "kind")
PICTURES = ("image", "left", "right")


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a split with ``datasets.load_dataset``; pictures stay encoded until they are used.

    Args:
        source: ``hub`` (an id) with ``revision``, or ``folder`` (a copy of such a repository);
            ``files``, all optional: ``split`` (its name there), ``config``, ``data_files`` (a
            path or pattern in the repository); ``columns``: field to column, where they differ.
            Fields: image, question, answers, captions, text, label, left, right; id and kind.
        split: Begins the ids; the split's name there by default.
        view: One of ``VIEWS``.

    Returns:
        Examples of the view. Answers may be texts or objects with ``answer``; one text counts as
        a list of it. Labels are texts, or numbers whose names the data set tells.

    Raises:
        DataError: if it cannot be had, or has no such column.
    """
    table = _table(source, split)
    columns = {field: source.get("columns", {}).get(field, field) for field in FIELDS[view]}
    for column in columns.values():
        if column not in table.column_names:
            raise missing("column", column, _place(source), table.column_names)
    for field in OPTIONAL:
        column = source.get("columns", {}).get(field)
        if column is not None and column not in table.column_names:
            raise missing("column", column, _place(source), table.column_names)
        columns |= {field: column} if column else {}
    return list(_examples(table, columns, split))


def _place(source: Mapping) -> str:
    return source.get("folder") or source["hub"]


def _table(source: Mapping, split: str) -> "Dataset":
    import datasets

    files = source.get("files", {})
    try:
        return datasets.load_dataset(
            _place(source),
            files.get("config"),
            split=files.get("split", split),
            data_files=files.get("data_files"),
            revision=None if "folder" in source else source["revision"],
        )
    except Exception as error:  # the library raises many kinds when a data set cannot be had
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(
            message(
                f"cannot read {_place(source)} ({type(error).__name__}: {reason})",
                "a data set of the hub that can be reached and that you may use, or its files",
                "Check id, split and network; accept its terms on the hub and log in if it is "
                "gated; or name a local copy under data_folders.",
            )
        ) from error


def _examples(table: "Dataset", columns: Mapping[str, str], split: str) -> Iterator[dict]:
    import datasets

    pictures = {field: column for field, column in columns.items() if field in PICTURES}
    for column in pictures.values():
        table = table.cast_column(column, datasets.Image(decode=False))
    names = getattr(table.features.get(columns.get("label")), "names", None)
    others = {field: column for field, column in columns.items() if field not in pictures}
    rows = table.select_columns(list(dict.fromkeys(others.values()))) if others else None
    classes: list[str] = names or []
    if "label" in columns and not classes:
        classes = sorted(map(str, table.unique(columns["label"])))
    for index in range(len(table)):
        row = rows[index] if rows else {}
        found = {field: row[column] for field, column in others.items()}
        number = str(found.pop("id", index))
        found["id"] = f"{split}/{number}"
        for field in ("answers", "captions"):
            if field in found:
                found[field] = _texts(found[field])
        if "label" in found:
            found["label"] = names[found["label"]] if names else str(found["label"])
        waiting = {
            field: Picture(f"{number} ({column})", functools.partial(_bytes, table, index, column))
            for field, column in pictures.items()
        }
        yield _shaped({**found, **waiting}, classes)


def _shaped(example: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """Gives an example the form that all layouts share."""
    if "left" in example:
        pair = [example.pop("left"), example.pop("right")]
        return {**example, "images": pair}
    if "label" in example:
        return {**example, "classes": classes}
    if "question" in example:
        return {"kind": "", **example}
    return example


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [str(item["answer"] if isinstance(item, Mapping) else item) for item in items]


def _bytes(table: "Dataset", index: int, column: str) -> bytes:
    cell = table[index][column]
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
