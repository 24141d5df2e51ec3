"""Scores that several jobs compute, each for a range of blocks, and one job gathers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ecoflap.errors import ArtifactError, ConfigError, message
from ecoflap.scores import check_towers

if TYPE_CHECKING:
    from ecoflap.models.base import Model


def blocks_of_shard(model: "Model", shard: int, shards: int) -> list[int]:
    """Returns the blocks that a job scores, so that all jobs of a score cost about the same.

    With ``zeroth`` a block costs as many forwards as it has matrices, and each of them runs the
    blocks from there on.

    Args:
        model: The model.
        shard: Number of the job, from 0.
        shards: How many jobs there are.

    Returns:
        Indices into ``model.blocks``; without matrices if there are fewer blocks than jobs.

    Raises:
        ConfigError: if there is no such shard.
    """
    if not 0 <= shard < shards:
        raise ConfigError(
            message(f"shard {shard} of {shards}", f"0 to {shards - 1}", "Correct the number.")
        )
    n = len(model.blocks)
    costs = [len(block.matrices) * (n - index) for index, block in enumerate(model.blocks)]
    total, before, chosen = sum(costs), 0, []
    for index, cost in enumerate(costs):
        # A block is of the shard in which the middle of its cost falls.
        if (2 * before + cost) * shards // (2 * total) == shard:
            chosen.append(index)
        before += cost
    return chosen


def gather(tables: Sequence[pd.DataFrame], matrices: Sequence[Mapping]) -> pd.DataFrame:
    """Puts the rows of all shards into one table.

    Args:
        tables: What the jobs found.
        matrices: The model's prunable matrices, from its manifest.

    Returns:
        The table that one job would have made.

    Raises:
        ArtifactError: if matrices are missing or scored twice.
        PruningError: as `ecoflap.scores.check_towers`.
    """
    # A shard without matrices has columns without a type, which would spoil those of the others.
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    expected = [matrix["name"] for matrix in matrices]
    if list(table["name"]) != expected:
        raise ArtifactError(
            message(
                f"the shards hold {len(table)} matrices, not those of the model in their order",
                f"each of its {len(expected)} matrices once",
                "Delete the shards and run their rule again.",
            )
        )
    table.attrs = tables[0].attrs
    check_towers(table)
    return table
