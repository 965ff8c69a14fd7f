"""Trying again while somebody is busy or away."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from steerward.jobs.rsf.patience import Patience
from steerward.protocol.errors import (
    EngineFailure,
    InvalidRequest,
    NonFiniteScore,
    NotReady,
    Overloaded,
    SteerwardError,
)

pytestmark = pytest.mark.anyio


def failing(*errors: SteerwardError) -> Callable[[], Awaitable[int]]:
    """Return a call that raises these, one a call, and then gives the number of calls."""
    left, calls = [*errors], [0]

    async def call() -> int:
        calls[0] += 1
        if left:
            raise left.pop(0)
        return calls[0]

    return call


async def test_errors_that_pass_are_waited_for() -> None:
    call = failing(Overloaded("busy", retry_after_s=0.01), NotReady("away"))
    assert await Patience(30.0).call(call) == 3


@pytest.mark.parametrize("error", [InvalidRequest("wrong"), NonFiniteScore("not a number")])
async def test_errors_that_do_not_pass_are_raised_at_once(error: SteerwardError) -> None:
    with pytest.raises(type(error)):
        await Patience(30.0).call(failing(error))


async def test_a_failed_step_of_a_device_is_tried_again_but_not_for_ever() -> None:
    assert await Patience(30.0).call(failing(EngineFailure("a"), EngineFailure("b"))) == 3
    with pytest.raises(EngineFailure, match="c"):
        await Patience(30.0).call(failing(*(EngineFailure(name) for name in "abc")))


async def test_what_stays_away_is_told_with_the_last_reason() -> None:
    began_at = time.monotonic()
    errors = [NotReady(f"away {number}", retry_after_s=30.0) for number in range(99)]
    with pytest.raises(NotReady, match="nothing was generated or scored for .* s: away"):
        await Patience(0.3).call(failing(*errors))
    # Not the half minute that the answer asked for.
    assert time.monotonic() - began_at < 5.0


async def test_what_works_for_one_call_gives_all_others_time() -> None:
    patience = Patience(0.4)
    slow = failing(*(NotReady("away") for _ in range(2)))

    async def with_another() -> int:
        await patience.call(failing())
        return await slow()

    assert await patience.call(with_another) == 3
