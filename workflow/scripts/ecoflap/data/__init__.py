"""Data sets as lists of examples. A module has SPLITS, VIEWS and ``load``. Needs no torch."""

from collections.abc import Mapping

from ecoflap.errors import DataError, message
from ecoflap.registry import DATASETS


def load(dataset: Mapping) -> list[dict]:
    """Loads the examples that a config entry describes.

    Args:
        dataset: ``name``, ``split``, ``view``, and optionally ``limit`` (number of examples) and
            ``folder`` (a local copy instead of the hub).

    Returns:
        Examples, each with a unique ``id`` and what its view says.

    Raises:
        DataError: if the data set cannot be read or has fewer examples than asked for.
    """
    settings = dict(dataset)
    name, limit = settings.pop("name"), dataset.get("limit")
    try:
        examples = DATASETS.get(name).load(**settings)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"data set '{name}' ({settings}): {error}") from error
    if len(examples) < (limit or 1):
        raise DataError(
            message(
                f"{limit or 1} examples of '{name}' ({settings}) asked for, {len(examples)} found",
                f"at most {len(examples)}",
                "Lower the limit or use a larger split.",
            )
        )
    return examples
