"""FGVC-Aircraft in its own text files: the variant of each picture."""

from collections.abc import Mapping

from ecoflap.data.annotations import (
    Form,
    images_of,
    missing,
    path_of,
    read_lines,
    read_pairs,
)
from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture

VIEWS = ("classes",)
FORM = Form(required=("list", "classes"), optional=("images",), examples=("list",))


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads a list of pictures with their variants.

    Args:
        source: ``folder``, and ``files``: ``list`` (lines of a number and a variant, such as
            images_variant_test.txt), ``classes`` (variants.txt) and ``images`` (folder).
        split: Begins the ids.
        view: ``classes``.

    Returns:
        Examples with ``id``, ``image``, ``label`` and ``classes``.

    Raises:
        DataError: for missing files, and a variant that is none of the classes.
    """
    path, images = path_of(source, "list"), images_of(source)
    classes = [line.strip() for line in read_lines(path_of(source, "classes"))]
    examples = []
    for number, label in read_pairs(path, "variant"):
        if label not in classes:
            raise missing("class", label, f"the classes, for {number} of {path}", classes)
        picture = Picture(f"{number}.jpg", beneath(images, f"{number}.jpg"))
        fields = {"image": picture, "label": label, "classes": classes}
        examples.append({"id": f"{split}/{number}", **fields})
    return examples
