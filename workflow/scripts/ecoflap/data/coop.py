"""Classified pictures in the layout of CoOp (Zhou et al. 2022), in which CLIP is evaluated."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json, take
from ecoflap.data.pictures import Picture

VIEWS = ("classes",)


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a split of a ``split_zhou_*.json`` file.

    Args:
        source: ``folder``, and ``files``: ``split_file`` (train, val and test, each a list of
            path, number and name of the class), ``part`` (train, val or test) and ``images``
            (folder of the pictures).
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes`` (all of them, by number).
    """
    path, files = path_of(source, "split_file"), source["files"]
    images = folder_of(source) / files.get("images", "")
    content = read_json(path)
    names = {
        number: name.replace("_", " ") for rows in content.values() for _, number, name in rows
    }
    classes = [names[number] for number in sorted(names)]
    return [
        {
            "id": f"{split}/{name}",
            "image": Picture(name, images / name),
            "label": names[number],
            "classes": classes,
        }
        for name, number, _ in take(content, take(files, "part", path), path)
    ]
