"""WikiText-2, from the hub or from a folder with one text file per split."""

import io
from pathlib import Path

from ecoflap.data.annotations import read_text

SPLITS = ("train", "validation", "test")
VIEWS = ("text",)
HUB_ID = "Salesforce/wikitext"
HUB_CONFIG = "wikitext-2-raw-v1"
HUB_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def load(
    *,
    split: str,
    view: str = "text",
    limit: int | None = None,
    folder: str | None = None,
    separator: str | None = None,
) -> list[dict]:
    """Loads the whole text of a split as one example.

    Args:
        split: One of ``SPLITS``.
        view: ``text``.
        limit: Number of examples; there is one, the whole text.
        folder: Holds train.txt, valid.txt, test.txt; the hub is asked if it is not given.
        separator: Stands between the rows, which are the hub's: each with its line end, and empty
            where a line is blank. Without it each line ends as it does in its place.

    Returns:
        One example with ``id`` and ``text``.

    Raises:
        ValueError: for an unknown split or view.
        OSError: if the folder or the hub does not have it.
    """
    if split not in SPLITS or view not in VIEWS:
        raise ValueError(f"split '{split}', view '{view}'; allowed: {SPLITS}, {VIEWS}")
    if folder is not None:
        path = Path(folder) / FILES[split]
        if not path.is_file():
            raise OSError(f"{path} is missing; allowed: a folder with {', '.join(FILES.values())}")
        rows = list(io.StringIO(read_text(path), newline="\n"))
    else:
        rows = _from_hub(split)
    if separator is not None:
        rows = [row if row.strip() else "" for row in rows]
    return [{"id": f"wikitext-2/{split}", "text": (separator or "").join(rows)}][:limit]


def _from_hub(split: str) -> list[str]:
    import datasets

    try:
        rows = datasets.load_dataset(HUB_ID, HUB_CONFIG, split=split, revision=HUB_REVISION)
    except Exception as error:  # the library raises many kinds when the hub cannot be reached
        raise OSError(
            f"cannot read {HUB_ID} from the hub ({type(error).__name__}); without network, name a "
            "local copy under data_folders in the config"
        ) from error
    return [row["text"] for row in rows]
