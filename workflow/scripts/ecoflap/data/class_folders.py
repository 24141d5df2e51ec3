"""Pictures in a folder per class, as ImageNet comes."""

from collections.abc import Mapping
from pathlib import Path

from ecoflap.data.files import Form, images_of, path_of, read_json, read_text
from ecoflap.data.pictures import Picture
from ecoflap.errors import DataError, message

VIEWS = ("classes",)
FORM = Form(required=("images",), optional=("classes",), examples=("images",))
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}


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
    root = images_of(source)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    names = _names(source)
    labels = {
        path: path.name.replace("_", " ") if names is None else names.get(path.name)
        for path in folders
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


def _names(source: Mapping) -> dict[str, str] | None:
    if "classes" not in source["files"]:
        return None
    path = path_of(source, "classes")
    if path.suffix == ".json":
        return read_json(path, dict)
    lines = read_text(path).splitlines()
    return {folder: name.strip() for folder, _, name in (line.partition(" ") for line in lines)}


def _check(root: Path, labels: Mapping[Path, str | None]) -> None:
    wrong = [path.name for path, label in labels.items() if not label]
    if wrong or not labels:
        raise DataError(
            message(
                f"{root}: {wrong[0]} has no class" if wrong else f"no folder in {root}",
                "a folder per class, each with a name",
                "Complete the file of class names, or correct the folder.",
            )
        )
