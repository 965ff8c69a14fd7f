"""Limits drawn near a count keep to what was wished."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from steerward.instructions.comparison import (
    RELATIONS,
    holds,
    limit_near,
    listed,
    other_count,
)
from steerward.instructions.kind import Wish


@given(st.integers(0, 10_000), st.sampled_from(RELATIONS), st.booleans(), st.randoms())
def test_limit_is_met_as_wished_and_near(
    count: int, relation: str, met: bool, order: random.Random
) -> None:
    limit = limit_near(count, relation, wish=Wish(met, order))
    if limit is None:
        # Only of nothing at all a limit of at least 1 says nothing.
        assert count == 0
        return
    assert holds(count, relation, limit) == met
    assert limit >= 1
    assert abs(limit - count) <= max(3, 0.4 * count + 1)


@given(st.integers(0, 1000), st.integers(0, 1), st.randoms())
def test_other_count_is_another_one(count: int, least: int, order: random.Random) -> None:
    other = other_count(count, least=least, order=order)
    assert other != count
    assert other >= least


def test_list_has_an_and_before_its_last() -> None:
    assert listed(["a"]) == '"a"'
    assert listed(["a", "b"]) == '"a" and "b"'
    assert listed(["a", "b", "c"]) == '"a", "b" and "c"'
