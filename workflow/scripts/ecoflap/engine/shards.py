"""The share of one of several jobs that score a model together."""

from ecoflap.errors import ConfigError
from ecoflap.models.model import Model


def blocks_of_shard(model: Model, shard: int, shards: int) -> list[int]:
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
            f"shard {shard} of {shards}",
            allowed=f"0 to {shards - 1}",
            fix="Correct the number.",
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
