"""Pictures in a folder per class, as ImageNet comes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ecoflap.data.annotations import (
    Form,
    images_of,
    missing_value,
    path_of,
    read_json,
    read_pairs,
    text,
)
from ecoflap.data.folders import is_hidden, is_picture, name_of
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

VIEWS = ("classes",)
FORM = Form(required=("images",), optional=("classes",), examples=("images",))


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Lists the pictures of all classes.

    Args:
        source: ``folder``, and ``files``: ``images`` (the folder of the class folders) and
            optionally ``classes``, from a folder's name to its class: a JSON object, or lines
            such as "n01440764 tench". Without it the class is the folder's name with blanks for
            underscores.
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes`` (all of them, in the order of
        the folders' names). Two folders may have one class, as in the names that CLIP was
        published with; then neither can be told from the other.

    Raises:
        DataError: if there is no folder, or one has no class.
    """
    root, names = images_of(source), _names(source)
    folders, _ = _folders(root)
    called = {path: name_of(path, root) for path in folders}
    labels = {
        path: name.replace("_", " ") if names is None else names.get(name)
        for path, name in called.items()
    }
    _check(root, labels, source["files"].get("classes", "its name"))
    classes = list(labels.values())
    return [
        {
            "id": f"{split}/{name_of(file, root)}",
            "image": Picture(name_of(file, root), file),
            "label": label,
            "classes": classes,
        }
        for path, label in labels.items()
        for file in _pictures(path, Counter())
    ]


def left_out(source: Mapping, *, split: str, view: str) -> Counter[str]:
    """Counts what lies in the folder and is no example, by the reason, and classes without one."""
    root = images_of(source)
    folders, found = _folders(root)
    for folder in folders:
        _pictures(folder, found)
    absent = set(_names(source) or ()) - {name_of(path, root) for path in folders}
    return found + Counter(
        {"classes without a folder, which no picture is compared with": len(absent)}
    )


def _folders(root: Path) -> tuple[list[Path], Counter[str]]:
    """Returns the folders of the classes, and counts what else lies beside them."""
    hidden, rest = _apart(root)
    folders = [path for path in rest if path.is_dir()]
    beside = len(rest) - len(folders)
    return folders, +Counter({"hidden files and folders": hidden, "files in no class": beside})


def _pictures(folder: Path, left: Counter[str]) -> list[Path]:
    hidden, rest = _apart(folder)
    files = [path for path in rest if not path.is_dir()]
    left.update({"hidden files and folders": hidden, "folders in a class": len(rest) - len(files)})
    return [file for file in files if is_picture(file, left)]


def _apart(folder: Path) -> tuple[int, list[Path]]:
    """Returns the number of hidden entries, and the others in order."""
    found = sorted(folder.iterdir())
    rest = [path for path in found if not is_hidden(path.name)]
    return len(found) - len(rest), rest


def _names(source: Mapping) -> dict[str, str] | None:
    """Returns the class of each folder that the file of classes names."""
    if "classes" not in source["files"]:
        return None
    path = path_of(source, "classes")
    pairs = read_json(path, dict).items() if path.suffix == ".json" else read_pairs(path, "class")
    names: dict[str, str] = {}
    for folder, value in pairs:
        name = text(value, f"'{folder}' of {path}").strip()
        if not name:
            raise missing_value(f"'{folder}' of {path}", "the name of a class")
        if names.setdefault(folder, name) != name:
            raise DataError(
                f"{path} calls the folder {folder} '{names[folder]}' and '{name}'",
                allowed="one class for each folder",
                fix="Remove one of the lines.",
            )
    return names


def _check(root: Path, labels: Mapping[Path, str | None], named_by: str) -> None:
    wrong = [path.name for path, label in labels.items() if not label]
    if wrong or not labels:
        raise DataError(
            f"{root}: {wrong[0]} has no class in {named_by}" if wrong else f"no folder in {root}",
            allowed="a folder per class, each with a name",
            fix="Complete the file of class names, or correct the folder.",
        )
