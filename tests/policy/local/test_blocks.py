from __future__ import annotations

import pytest

from steerward.policy.local.blocks import BlockPool


def test_shared_blocks_are_free_only_when_the_last_reader_has_gone() -> None:
    pool = BlockPool(4, block_tokens=16)
    blocks = pool.take(3)
    pool.share(blocks[:2])
    pool.release(blocks)
    assert pool.num_free == 2
    pool.release(blocks[:2])
    assert pool.num_free == 4


def test_a_block_is_never_given_twice() -> None:
    pool = BlockPool(5, block_tokens=16)
    assert sorted([*pool.take(2), *pool.take(3)]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (0, 0)])
def test_blocks_round_up(tokens: int, blocks: int) -> None:
    assert BlockPool(4, block_tokens=16).blocks_for(tokens) == blocks
