"""Scores in shards: together they are the blocks, in shares of about the same cost."""

from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecoflap.engine import shards
from ecoflap.errors import ArtifactError, ConfigError
from ecoflap.scores import gather


def model(counts):
    return SimpleNamespace(blocks=[SimpleNamespace(matrices=[0] * n) for n in counts])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60).filter(any), st.integers(1, 20))
def test_each_block_with_matrices_is_in_one_shard_and_shards_are_ranges(counts, n):
    parts = [shards.blocks_of_shard(model(counts), shard, n) for shard in range(n)]
    together = [index for part in parts for index in part]
    assert together == sorted(set(together))
    assert {i for i, count in enumerate(counts) if count} <= set(together)


def test_shares_cost_about_the_same():
    counts = [7] * 40
    cost = {index: 7 * (40 - index) for index in range(40)}  # forwards of the blocks from there on
    parts = [shards.blocks_of_shard(model(counts), shard, 4) for shard in range(4)]
    costs = [sum(cost[index] for index in part) for part in parts]
    assert max(costs) - min(costs) <= 2 * max(cost.values())
    assert len(parts[0]) < len(parts[-1])


def test_a_shard_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="shard 4 of 4. Allowed: 0 to 3"):
        shards.blocks_of_shard(model([1]), 4, 4)


def test_gathered_are_all_matrices_in_their_order_or_an_error():
    tables = [pd.DataFrame({"name": ["a", "b"]}), pd.DataFrame({"name": ["c"]})]
    names = [{"name": name} for name in "abc"]
    assert list(gather(tables, names)["name"]) == ["a", "b", "c"]
    assert list(gather([*tables, tables[0][:0]], names)["name"]) == ["a", "b", "c"]
    for wrong in (tables[:1], tables[::-1], [*tables, tables[1]]):
        with pytest.raises(ArtifactError, match="each of its 3 matrices once"):
            gather(wrong, names)
