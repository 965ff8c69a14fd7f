"""Scoring what has ended while the rest is drawn: when, in how many calls, and what goes wrong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steerward.policy.case import Turns
from steerward.policy.delivery import Selected, Streamed
from steerward.policy.generation import Prompt
from steerward.policy.plan import Plan
from steerward.policy.steering_types import Part, SteeringReport
from steerward.protocol.errors import DeadlineExceeded, Overloaded
from tests.policy.conftest import until
from tests.policy.steering.models import TURNS
from tests.policy.steering.scripted import VALUES, Drawing, Judge

pytestmark = pytest.mark.anyio


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


@pytest.fixture(autouse=True)
async def nothing_left_behind(judge: Judge) -> AsyncIterator[None]:
    """No scoring goes on after a test, and no error was left that nobody looked at."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    loop.set_exception_handler(handler)
    assert judge.num_running == 0
    assert complaints == []


def plan(num: int, *, returned: int, conversation: Turns | None = TURNS) -> Plan:
    report = SteeringReport("best_of", (), None, None, None, num, "judge", ())
    return Plan((Prompt(TURNS),) * num, returned, returned < num, conversation, None, report)


def best_of(num: int, drawing: Drawing, judge: Judge, *, returned: int = 1) -> Selected:
    drawing.num_samples = num
    return Selected(drawing, plan(num, returned=returned), judge, deadline=0.0)


def all_of(num: int, drawing: Drawing, judge: Judge) -> Streamed:
    drawing.num_samples = num
    return Streamed(drawing, plan(num, returned=num), judge, deadline=0.0)


async def all_parts(delivery: Selected | Streamed) -> list[Part]:
    return [part async for part in delivery]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_has_ended_when_half_have_is_scored_while_the_rest_is_drawn(
    drawing: Drawing, judge: Judge
) -> None:
    delivery = best_of(6, drawing, judge, returned=6)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(5, 1)
    await settled()
    assert judge.calls == []
    drawing.end(3)
    await until(lambda: len(judge.calls) == 1)
    drawing.end(0, 2)
    await settled()
    assert judge.calls == [[1.0, 2.0, 0.0]]
    drawing.end(4)
    parts = await reading
    assert judge.calls[1:] == [[3.0, 5.0, 4.0]]
    assert [float(part.text) for part in parts] == sorted(VALUES, reverse=True)
    assert [part.reward.score for part in parts if part.reward] == sorted(VALUES, reverse=True)
    assert delivery.ranking is not None
    assert [reward.score for reward in delivery.ranking.rewards] == list(VALUES)
    await delivery.aclose()


async def test_streamed_completions_get_their_rewards_in_their_own_order(
    drawing: Drawing, judge: Judge
) -> None:
    delivery = all_of(4, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(3, 1)
    await until(lambda: len(judge.calls) == 1)
    drawing.end(0, 2)
    *_, first, second, third, fourth = await reading
    ends = [first, second, third, fourth]
    assert [end.index for end in ends] == [0, 1, 2, 3]
    assert [end.reward.score for end in ends if end.reward] == list(VALUES[:4])
    assert judge.calls == [[1.0, 2.0], [3.0, 5.0]]
    await delivery.aclose()


@pytest.mark.parametrize(
    ("ends", "num_calls"),
    [
        ([[0]], 1),
        ([[0], [1]], 1),
        ([[0], [1], [2]], 2),
        ([[0], [1, 2]], 1),
        ([[0, 1, 2, 3, 4, 5]], 1),
        ([[0, 1, 2, 3, 4], [5]], 2),
        ([[0, 1], [2, 3], [4], [5]], 2),
    ],
    ids=["one", "two", "three", "pair-last", "together", "one-late", "one-by-one"],
)
async def test_samples_are_scored_in_two_calls_at_most_and_in_one_where_two_gain_nothing(
    drawing: Drawing, judge: Judge, ends: list[list[int]], num_calls: int
) -> None:
    num = sum(map(len, ends))
    delivery = best_of(num, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    for samples in ends:
        drawing.end(*samples)
        await settled()
    (part,) = await reading
    assert float(part.text) == max(VALUES[:num])
    assert len(judge.calls) == num_calls
    assert sorted(value for call in judge.calls for value in call) == sorted(VALUES[:num])
    await delivery.aclose()


async def test_nothing_is_scored_early_where_nothing_is_scored(drawing: Drawing) -> None:
    drawing.num_samples = 4
    delivery = Streamed(drawing, plan(4, returned=4, conversation=None), None, deadline=0.0)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1, 2)
    await settled()
    drawing.end(3)
    assert [part.finish_reason for part in await reading] == ["stop"] * 4
    await delivery.aclose()


async def test_weights_of_the_reward_model_that_change_in_between_score_all_again(
    drawing: Drawing, judge: Judge
) -> None:
    delivery = best_of(4, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1)
    await until(lambda: len(judge.calls) == 1)
    await settled()
    judge.weight_version = "judge-2"
    drawing.end(2, 3)
    (part,) = await reading
    assert judge.calls == [[3.0, 1.0], [5.0, 2.0], [3.0, 1.0, 5.0, 2.0]]
    assert float(part.text) == 5.0
    assert delivery.ranking is not None
    assert delivery.ranking.weight_version == "judge-2"
    await delivery.aclose()


async def test_early_scoring_that_fails_makes_the_request_fail_at_its_end(
    drawing: Drawing, judge: Judge
) -> None:
    judge.errors = [Overloaded("too much to do", retry_after_s=2.0)]
    delivery = best_of(4, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1)
    await until(lambda: not judge.errors)
    drawing.end(2, 3)
    with pytest.raises(Overloaded, match="could not be ranked: too much to do") as caught:
        await reading
    assert caught.value.retry_after_s == 2.0
    # The rest need not be scored then.
    assert len(judge.calls) == 1
    assert delivery.ranking is None
    await delivery.aclose()


async def test_both_scorings_may_fail(drawing: Drawing, judge: Judge) -> None:
    judge.errors = [Overloaded("the first"), Overloaded("the second")]
    judge.may_answer.clear()
    delivery = all_of(3, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1)
    await until(lambda: len(judge.calls) == 1)
    drawing.end(2)
    await until(lambda: len(judge.calls) == 2)
    judge.may_answer.set()
    with pytest.raises(Overloaded, match="could not be scored: the first; send reward: false"):
        await reading
    await delivery.aclose()


@pytest.mark.parametrize("ended", [[0, 1], [0, 1, 2]], ids=["drawing", "ranking"])
async def test_closing_takes_all_scoring_back(
    drawing: Drawing, judge: Judge, ended: list[int]
) -> None:
    judge.may_answer.clear()
    delivery = best_of(3, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    for num, sample in enumerate(ended, start=1):
        drawing.end(sample)
        await until(lambda num=num: len(judge.calls) == num - 1)
    await delivery.aclose()
    await delivery.aclose()
    if len(ended) == 3:
        assert await reading == []
    else:
        reading.cancel()
        await asyncio.wait([reading])
    assert judge.num_cancelled == len(judge.calls) == len(ended) - 1
    assert delivery.ranking is None


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "running"])
async def test_drawing_that_fails_leaves_no_early_scoring_behind(
    drawing: Drawing, judge: Judge, fails: bool
) -> None:
    if fails:
        judge.errors = [Overloaded("too much to do")]
    else:
        judge.may_answer.clear()
    delivery = best_of(3, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1)
    await until(lambda: len(judge.calls) == 1)
    await settled()
    drawing.fail()
    with pytest.raises(DeadlineExceeded, match="no more time to draw"):
        await reading
    await delivery.aclose()
    assert judge.num_cancelled == (not fails)


async def test_pieces_that_come_after_the_end_of_everything_score_nothing(
    drawing: Drawing, judge: Judge
) -> None:
    delivery = best_of(4, drawing, judge)
    reading = asyncio.create_task(all_parts(delivery))
    drawing.end(0, 1)
    await delivery.aclose()
    await asyncio.wait([reading])
    await settled()
    assert judge.calls == []
    assert reading.result() == []
