"""Pictures in a folder per class, as ImageNet comes."""

from collections.abc import Mapping
from pathlib import Path

from ecoflap.data.files import path_of, read_json
from ecoflap.data.pictures import Picture
from ecoflap.errors import DataError, message

VIEWS = ("classes",)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Lists the pictures of all classes.

    Args:
        source: ``folder``, and ``files``: ``images`` (the folder of the class folders) and
            optionally ``classes``, a JSON file from a folder's name to its class. Without it the
            class is the folder's name with blanks for underscores.
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes`` (all of them, in the order of
        the folders' names).

    Raises:
        DataError: if there is no folder, one has no class, or two have the same.
    """
    root = path_of(source, "images")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    named = "classes" in source["files"]
    names = read_json(path_of(source, "classes")) if named else {}
    labels = {
        path: names.get(path.name) if named else path.name.replace("_", " ") for path in folders
    }
    _check(root, labels)
    classes = list(labels.values())
    return [
        {
            "id": f"{split}/{path.name}/{file.name}",
            "image": Picture(f"{path.name}/{file.name}", file),
            "label": label,
            "classes": classes,
        }
        for path, label in labels.items()
        for file in sorted(path.iterdir())
        if file.suffix.lower() in SUFFIXES
    ]


def _check(root: Path, labels: Mapping[Path, str | None]) -> None:
    found = list(labels.values())
    wrong = [path.name for path, label in labels.items() if label is None or found.count(label) > 1]
    if wrong or not found:
        raise DataError(
            message(
                f"{root}: {wrong[0]} has no class of its own" if wrong else f"no folder in {root}",
                "a folder per class, each class once",
                "Complete the file of class names, or correct the folder.",
            )
        )
