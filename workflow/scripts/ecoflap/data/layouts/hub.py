"""Any data set of the Hugging Face hub, or files in its form, through a mapping of columns."""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecoflap.data.annotations import Form, folder_of, missing, missing_value, text
from ecoflap.data.layouts.nlvr2 import judgement
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

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
FORM = Form(
    optional=("split", "config", "data_files"),
    columns=(*dict.fromkeys(field for fields in FIELDS.values() for field in fields), *OPTIONAL),
)


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
        a list of it. Labels are texts, or numbers whose names the data set tells. Pictures may be
        stored in the table, or named: a relative name counts from ``folder``. Of plain texts,
        rows without words are left out: data sets with a row per line have many.

    Raises:
        DataError: if it cannot be had, or has no such column.
    """
    table, columns = _mapped(source, split, view)
    examples = _examples(table, columns, split, source)
    return [e for e in examples if view != "text" or e["text"].strip()]


def left_out(source: Mapping, *, split: str, view: str) -> Counter[str]:
    """Counts the rows that are no examples: those without words where texts are read."""
    if view != "text":
        return Counter()
    table, columns = _mapped(source, split, view)
    rows = (row[columns["text"]] for row in table.select_columns([columns["text"]]))
    empty = sum(not text(value, "a text").strip() for value in rows)
    return Counter({"rows without words": empty})


def files_of(source: Mapping, *, split: str, view: str) -> set[str]:
    """Returns the files of a split, and the pictures that they name."""
    import datasets
    import pyarrow.compute as pc

    table, columns = _mapped(source, split, view)
    builder = datasets.load_dataset_builder(_place(source), **_where(source))
    parts = re.sub(r"\[.*?\]", "", _split(source, split)).split("+")
    files = builder.config.data_files or {}
    parts = list(files) if "all" in parts else parts
    found = {str(file) for part in parts for file in files.get(part, [])}
    for column in {columns[field] for field in columns if field in PICTURES}:
        cells = _undecoded(table, column, source).data.column(column)
        outside = pc.is_null(pc.struct_field(cells, "bytes"))
        names = pc.drop_null(pc.filter(pc.struct_field(cells, "path"), outside)).to_pylist()
        found |= {str(Path(source.get("folder", ""), name)) for name in names}
    return found


def _mapped(source: Mapping, split: str, view: str) -> tuple["Dataset", dict[str, str]]:
    """Returns the table of a split, and the column of each field of a view."""
    table = _table(source, split)
    mapped = source.get("columns", {})
    columns = {field: mapped.get(field, field) for field in FIELDS[view]}
    columns |= {field: mapped[field] for field in OPTIONAL if field in mapped}
    for column in columns.values():
        if column not in table.column_names:
            raise missing("column", column, _place(source), table.column_names)
    return table, columns


def _split(source: Mapping, split: str) -> str:
    return source.get("files", {}).get("split", split)


def _where(source: Mapping) -> dict[str, Any]:
    files = source.get("files", {})
    return {
        "name": files.get("config"),
        "data_files": files.get("data_files"),
        "revision": None if "folder" in source else source["revision"],
    }


def _place(source: Mapping) -> str:
    return source.get("folder") or source["hub"]


def _table(source: Mapping, split: str) -> "Dataset":
    import datasets

    if "hub" not in source:
        folder_of(source)  # tells that there is neither
    read = functools.partial(
        datasets.load_dataset, _place(source), split=_split(source, split), **_where(source)
    )
    try:
        builder = datasets.load_dataset_builder(_place(source), **_where(source))
        if not hasattr(builder.config, "keep_default_na"):
            return read()
        # The cells of a CSV are texts: 007 is no 7, 2 no 2.0, and NA is a word.
        texts = dict.fromkeys(read(nrows=1).column_names, datasets.Value("string"))
        return read(features=datasets.Features(texts), keep_default_na=False)
    except Exception as error:  # the library raises many kinds when a data set cannot be had
        reasons = [error] if error.__cause__ is None else [error, error.__cause__]
        told = ": ".join(
            f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')}" for e in reasons
        )
        raise DataError(
            f"cannot read {_place(source)} ({told})",
            allowed="a data set of the hub that you can reach and may use, or whole files in UTF-8",
            fix="Check id, split, files and network; accept its terms on the hub and log in if it "
            "is gated; or name a local copy under data_folders.",
        ) from error


def _examples(
    table: "Dataset", columns: Mapping[str, str], split: str, source: Mapping
) -> Iterator[dict]:
    pictures = {field: column for field, column in columns.items() if field in PICTURES}
    for column in pictures.values():
        table = _undecoded(table, column, source)
    others = {field: column for field, column in columns.items() if field not in pictures}
    rows = table.select_columns(list(dict.fromkeys(others.values()))) if others else None
    names, classes = _classes(table, columns) if "label" in columns else (None, [])
    for index in range(len(table)):
        row = rows[index] if rows else {}
        number = str(index)
        if "id" in columns:
            place = f"'{columns['id']}' of row {index} of {_place(source)}"
            number = text(row[columns["id"]], place)
            if not number.strip():
                raise missing_value(place, "an id")
        found: dict[str, Any] = {"id": f"{split}/{number}"}
        for field, column in others.items():
            place = f"'{column}' of row {index} of {_place(source)}"
            if field == "label":
                found[field] = _label(row[column], names, place)
            elif field in ("answers", "captions"):
                found[field] = _texts(row[column], place)
            elif field != "id":
                found[field] = text(row[column], place)
        for field, column in pictures.items():
            read = functools.partial(_bytes, table, index, column, source.get("folder", ""))
            found[field] = Picture(f"{number} ({column})", read)
        yield _shaped(found, classes, _place(source))


def _undecoded(table: "Dataset", column: str, source: Mapping) -> "Dataset":
    """Returns a table that gives the bytes or the path of a column's pictures."""
    import datasets

    try:
        return table.cast_column(column, datasets.Image(decode=False))
    except Exception as error:  # the library raises several kinds
        kind = table.features[column]
        raise DataError(
            f"the column '{column}' of {_place(source)} holds {kind}, not pictures",
            allowed="pictures, their bytes, or their paths",
            fix="Map the field to another column.",
        ) from error


def _classes(table: "Dataset", columns: Mapping[str, str]) -> tuple[list[str] | None, list[str]]:
    """Returns the names of numbered classes if they have some, and all classes."""
    column = columns["label"]
    names = getattr(table.features[column], "names", None)
    if names is None and not isinstance(getattr(table.features[column], "dtype", None), str):
        raise DataError(
            f"the column '{column}' holds {table.features[column]}, not labels",
            allowed="texts or numbers, one for each row",
            fix="Map label to another column.",
        )
    kind = str(table.features[column].dtype)
    if names is None and "image" in columns and "string" not in kind:
        raise DataError(
            f"the column '{column}' holds numbers ({kind}) without the names of their classes",
            allowed="names of classes, or numbers whose names the data set tells (ClassLabel)",
            fix="Map label to a column with names, or write the names into the files.",
        )
    found = table.unique(column) if names is None else []
    return names, names or sorted({_label(value, names, column) for value in found})


def _label(value: Any, names: list[str] | None, place: str) -> str:
    """Returns the name of a class; splits whose labels are kept secret have -1."""
    label = str(value) if isinstance(value, bool) else text(value, place).strip()
    if not label or (names and not 0 <= value < len(names)):
        raise DataError(
            f"{place} has no label ({value})",
            allowed="a class",
            fix="Choose a split with labels.",
        )
    return names[value] if names else label


def _shaped(example: dict[str, Any], classes: list[str], place: str) -> dict[str, Any]:
    """Gives an example the form that all layouts share."""
    if "left" in example:
        pair = [example.pop("left"), example.pop("right")]
        label = judgement(example["label"], f"{example['id']} of {place}")
        return {**example, "images": pair, "label": label}
    if "label" in example:
        return {**example, "classes": classes}
    if "question" in example:
        return {"kind": "", **example}
    return example


def _texts(value: Any, place: str) -> list[str]:
    """Returns texts given as a list or one alone, of objects with ``answer`` or as one of lists."""
    if isinstance(value, Mapping) and "answer" in value:
        value = value["answer"]
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, Mapping) and "answer" not in item:
            raise missing("key", "answer", place, item)
    texts = [item["answer"] if isinstance(item, Mapping) else item for item in items]
    return [text(item, place) for item in texts]


def _bytes(table: "Dataset", index: int, column: str, folder: str) -> bytes:
    cell = table[index][column]
    if cell is None:
        raise ValueError("there is none")
    return cell["bytes"] if cell["bytes"] is not None else Path(folder, cell["path"]).read_bytes()
