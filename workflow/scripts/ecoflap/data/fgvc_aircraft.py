"""FGVC-Aircraft in its own text files: the variant of each picture."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of
from ecoflap.data.pictures import Picture

VIEWS = ("classes",)


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a list of pictures with their variants.

    Args:
        source: ``folder``, and ``files``: ``list`` (lines of a number and a variant, such as
            images_variant_test.txt), ``classes`` (variants.txt) and ``images`` (folder).
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes``.
    """
    classes = path_of(source, "classes").read_text(encoding="utf-8").split("\n")
    classes = [name.strip() for name in classes if name.strip()]
    images = folder_of(source) / source["files"].get("images", "")
    examples = []
    for line in path_of(source, "list").read_text(encoding="utf-8").splitlines():
        number, _, label = line.strip().partition(" ")
        if number:
            name = f"{number}.jpg"
            picture = Picture(name, images / name)
            fields = {"image": picture, "label": label, "classes": classes}
            examples.append({"id": f"{split}/{number}", **fields})
    return examples
