"""Places go to who came first; who gives up takes none."""

from __future__ import annotations

import asyncio

import pytest

from steerward.policy.places import Places
from steerward.protocol.errors import Overloaded

pytestmark = pytest.mark.anyio


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    places = Places(max_running=4, max_waiting=10)
    await places.take(3)
    large, small = asyncio.create_task(places.take(4)), asyncio.create_task(places.take(1))
    await settle()
    # There is a place for the small one, but it came later.
    assert (places.running, places.waiting) == (3, 5)
    places.give_back(3)
    await settle()
    assert large.done()
    assert not small.done()
    places.give_back(4)
    await small
    assert (places.running, places.waiting) == (1, 0)


async def test_more_than_there_are_run_alone() -> None:
    places = Places(max_running=2, max_waiting=10)
    await places.take(5)
    assert places.running == 5


async def test_too_many_waiting_are_refused() -> None:
    places = Places(max_running=1, max_waiting=2)
    await places.take(1)
    waiting = asyncio.create_task(places.take(2))
    await settle()
    with pytest.raises(Overloaded, match="2 completions wait already.*limit 2") as caught:
        await places.take(1)
    assert caught.value.retry_after_s
    places.give_back(1)
    await waiting


async def test_who_gives_up_lets_others_in() -> None:
    places = Places(max_running=2, max_waiting=10)
    await places.take(1)
    first, second = asyncio.create_task(places.take(2)), asyncio.create_task(places.take(1))
    await settle()
    first.cancel()
    await second
    assert first.cancelled()
    assert (places.running, places.waiting) == (2, 0)


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_giving_up_at_the_moment_of_the_turn_loses_no_place(cancels_first: bool) -> None:
    places = Places(max_running=1, max_waiting=10)
    await places.take(1)
    waiting = asyncio.create_task(places.take(1))
    await settle()
    if cancels_first:
        waiting.cancel()
    places.give_back(1)
    if not cancels_first:
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (places.running, places.waiting) == (0, 0)
