"""Looks at every example of a data set once, before long work rests on it."""

import hashlib
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from ecoflap import data
from ecoflap.data.picture import Picture
from ecoflap.errors import DataError

SHOWN = 10  # problems told by name; of the rest, the number
LISTS = ("answers", "captions")


def check(dataset: Mapping) -> dict:
    """Opens every picture and reads every text of a data set.

    Args:
        dataset: As for `ecoflap.data.load`.

    Returns:
        ``examples`` (their number), ``left_out`` (how much lies there and is none, by the reason)
        and ``fingerprint`` (SHA-256 of ids and texts).

    Raises:
        DataError: naming the first problems of all: pictures that cannot be read or shown, empty
            texts, ids that occur twice.
    """
    examples = data.load(dataset)
    digest, problems, seen, classes = hashlib.sha256(), [], set(), None
    for example in tqdm(examples, desc=dataset["name"], unit="example", disable=None):
        problems += _problems(example)
        if example["id"] in seen:
            problems.append(f"the id {example['id']} occurs twice")
        seen.add(example["id"])
        texts = {key: value for key, value in example.items() if _is_text(value)}
        if texts.pop("classes", classes) is not classes:  # mostly one list that all share
            classes = example["classes"]
            digest.update(repr(classes).encode())
        digest.update(repr(sorted(texts.items())).encode())
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
        further = len(problems) - SHOWN
        listed += f"\n  - and {further} more" if further > 0 else ""
        raise DataError(
            f"the data set '{dataset['name']}' has {len(problems)} problem(s):{listed}",
            allowed="whole pictures, texts with words, each id once",
            fix="Mend or remove these examples.",
        )
    found = {"examples": len(examples), "left_out": data.left_out(dataset)}
    return {**found, "fingerprint": digest.hexdigest()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )


def _problems(example: Mapping) -> Iterator[str]:
    for value in (example.get("image"), *example.get("images", [])):
        if isinstance(value, Picture):
            try:
                value.open()
            except DataError as error:
                yield str(error).partition(". Allowed")[0]
    for key in LISTS:
        texts = example.get(key, ["none"])
        if not texts or not all(text.strip() for text in texts):
            yield f"{example['id']} has no or empty {key}"
    for key in ("question", "text", "label"):
        if not example.get(key, "none").strip():
            yield f"{example['id']} has an empty {key}"
