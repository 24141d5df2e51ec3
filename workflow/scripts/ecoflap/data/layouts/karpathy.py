"""Captions in the JSON layout of Karpathy's splits: dataset_coco.json, dataset_flickr30k.json."""

from collections.abc import Mapping

from ecoflap.data.annotations import (
    Form,
    images_of,
    missing,
    named,
    optional_text,
    path_of,
    read_json,
    take,
    take_name,
    take_text,
)
from ecoflap.data.folders import beneath
from ecoflap.data.picture import Picture

VIEWS = ("captions",)
FORM = Form(
    required=("captions", "split"), optional=("images",), examples=("captions",), parts="split"
)


def load(source: Mapping, *, split: str, view: str) -> list[dict]:
    """Reads the pictures of a split with their captions.

    Args:
        source: ``folder``, and ``files``: ``captions`` (the JSON file), ``split`` (its name in
            the file, or several with commas, such as ``train, restval``) and ``images`` (folder
            of the pictures).
        split: Begins the ids.
        view: ``captions``.

    Returns:
        Examples with ``id``, ``image`` and ``captions`` (usually five).

    Raises:
        DataError: for missing files and keys, and a split that the file does not have.
    """
    path, images = path_of(source, "captions"), images_of(source)
    wanted = {name.strip() for name in named(source, "split").split(",")}
    examples, known = [], set()
    for entry in take(read_json(path, dict), "images", path, list):
        part = take_name(entry, "split", path)
        known.add(part)
        if part not in wanted:
            continue
        name = take_name(entry, "filename", path)
        folder = beneath(images, optional_text(entry, "filepath", path))
        sentences = take(entry, "sentences", path, list)
        examples.append(
            {
                "id": f"{split}/{name}",
                "image": Picture(name, beneath(folder, name)),
                "captions": [take_text(sentence, "raw", path) for sentence in sentences],
            }
        )
    for name in sorted(wanted - known):
        raise missing("split", name, str(path), sorted(known))
    return examples
