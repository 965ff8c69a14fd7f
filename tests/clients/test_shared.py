"""Calls that columns share: how long each is kept."""

from __future__ import annotations

from concurrent.futures import Future

from steerward.clients._samples import Scored
from steerward.clients._shared import SharedBatches


def taken(batches: SharedBatches, column: str, answer: str) -> Future[list[Scored | None]]:
    return batches.take(column, ["Rain?"], [answer], Future)


def test_call_is_dropped_when_all_columns_had_it() -> None:
    batches = SharedBatches(num_columns=2, max_batches=2)
    half = taken(batches, "score", "half")
    whole = taken(batches, "score", "whole")
    assert taken(batches, "objectives", "whole") is whole
    # The place of the whole one is free again, so the half one is still there.
    assert taken(batches, "score", "third") is not whole
    assert taken(batches, "objectives", "half") is half
    assert taken(batches, "score", "whole") is not whole


def test_oldest_call_goes_where_too_many_wait() -> None:
    batches = SharedBatches(num_columns=2, max_batches=1)
    first = taken(batches, "score", "first")
    taken(batches, "score", "second")
    assert taken(batches, "objectives", "first") is not first


def test_single_column_shares_nothing() -> None:
    batches = SharedBatches(num_columns=1, max_batches=8)
    assert taken(batches, "score", "one") is not taken(batches, "score", "one")
