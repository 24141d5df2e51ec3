"""The files of a folder that a data set is read from, and what in it is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".mpo", ".png", ".gif", ".webp", ".avif"),
    *(".bmp", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff"),
}


def name_of(path: Path, root: Path) -> str:
    """Returns a path below a folder as text, whatever the locale; names are UTF-8."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def beneath(root: Path, name: str) -> Path:
    """Returns the path that a text names below a folder, whatever the locale."""
    return root / os.fsdecode(name.encode("utf-8"))


def is_hidden(name: str) -> bool:
    """Tells whether a name is hidden, or of what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(path: Path, left_out: Counter[str]) -> bool:
    """Tells by its suffix whether a file is read as a picture; if not, it is counted."""
    if path.suffix.lower() in SUFFIXES:
        return True
    left_out[f"files of the kind '{path.suffix.lower()}'"] += 1
    return False


def walk(root: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Yields the files of a folder and of all folders in it, linked ones too, each folder once.

    A link to a folder that holds the root, or that is walked anyway, is counted.

    Args:
        root: The folder.
        left_out: Gets what is not yielded, and why, with its number.
    """
    waiting, links = [root], []
    seen, above = set(), os.path.realpath(root)
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen or (real != above and os.path.commonpath([real, above]) == real):
            left_out["links to a folder that is read already or holds all"] += 1
            continue
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_hidden(entry.name):
                left_out["hidden files and folders"] += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else waiting).append(folder / entry.name)
            else:
                yield folder / entry.name
