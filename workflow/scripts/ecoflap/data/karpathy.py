"""Captions in the JSON layout of Karpathy's splits: dataset_coco.json, dataset_flickr30k.json."""

from collections.abc import Mapping

from ecoflap.data.files import folder_of, path_of, read_json, take
from ecoflap.data.pictures import Picture

VIEWS = ("captions",)


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
    """
    path, files = path_of(source, "captions"), source["files"]
    wanted = {name.strip() for name in take(files, "split", path).split(",")}
    images = folder_of(source) / files.get("images", "")
    examples = []
    for entry in take(read_json(path), "images", path):
        if take(entry, "split", path) not in wanted:
            continue
        name = take(entry, "filename", path)
        sentences = take(entry, "sentences", path)
        examples.append(
            {
                "id": f"{split}/{name}",
                "image": Picture(name, images / entry.get("filepath", "") / name),
                "captions": [take(sentence, "raw", path).strip() for sentence in sentences],
            }
        )
    return examples
