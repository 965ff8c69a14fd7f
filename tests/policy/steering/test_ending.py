"""Closing, deadlines and reward models that stop, in the middle of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from steerward.policy.steering import (
    Part,
    SteeredGeneration,
)
from steerward.protocol.errors import (
    DeadlineExceeded,
    NotReady,
)
from steerward.server.rewards import EngineRewards
from tests.policy.conftest import until
from tests.policy.steering.models import (
    CONCISE,
    LONG,
    TURNS,
    Models,
    answer_of,
    ask,
    held,
    scored,
)

pytestmark = pytest.mark.anyio


async def given_up(generation: SteeredGeneration, reading: asyncio.Task[Any]) -> None:
    """Do what a server does when its client has gone."""
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await generation.aclose()
    await generation.aclose()


async def reader_of(generation: SteeredGeneration) -> list[Part]:
    return [part async for part in generation]


async def read_into(parts: list[Part], generation: SteeredGeneration) -> None:
    async for part in generation:
        parts.append(part)


@pytest.mark.parametrize(
    "fields",
    [{"n": 8}, {"best_of": 8}, {"steering": "neighbours", "num_neighbours": 8}],
    ids=["prompt", "best_of", "neighbours"],
)
async def test_closing_in_mid_generation_frees_all_places_at_once(
    models: Models, fields: dict[str, Any]
) -> None:
    generation = await models.steered.begin(ask(direction=CONCISE, sampling=LONG, **fields))
    reading = asyncio.create_task(reader_of(generation))
    await until(lambda: models.policy.card().running == 8)
    behind = asyncio.create_task(answer_of(models.steered, ask()))
    await until(lambda: models.policy.card().waiting == 1)
    await given_up(generation, reading)
    assert (await asyncio.wait_for(behind, 5.0)).texts
    await until(lambda: models.policy.card().running == 0)
    # Only the other request was scored.
    assert models.scoring_requests == 1
    assert generation.ranking is None


async def closed_by_cancelling(generation: SteeredGeneration, reading: asyncio.Task[Any]) -> None:
    await given_up(generation, reading)
    assert reading.cancelled()


async def closed_beside_the_reader(
    generation: SteeredGeneration, reading: asyncio.Task[list[Part]]
) -> None:
    await generation.aclose()
    parts = await asyncio.wait_for(reading, 5.0)
    assert all(part.finish_reason is None for part in parts)


@pytest.mark.parametrize("close", [closed_by_cancelling, closed_beside_the_reader])
@pytest.mark.parametrize("fields", [{"n": 3}, {"best_of": 3}], ids=["prompt", "best_of"])
async def test_closing_in_mid_ranking_takes_the_scoring_back(
    models: Models,
    fields: dict[str, Any],
    close: Callable[[SteeredGeneration, asyncio.Task[Any]], Awaitable[None]],
) -> None:
    with held(models.engine.model.backbone) as is_held:
        # The device has this one; what is asked for then waits in the queue.
        before = asyncio.create_task(scored(models.engine, ["Fine."]))
        await until(is_held.is_set)
        generation = await models.steered.begin(ask(direction=CONCISE, **fields))
        reading = asyncio.create_task(reader_of(generation))
        await until(lambda: models.policy.card().running == 0 and models.engine.queued_tokens > 0)
        await close(generation, reading)
        await until(lambda: models.engine.queued_tokens == 0)
    await before
    await scored(models.engine, ["Fine."])
    assert models.counted("candidates_total") == 2
    assert generation.ranking is None
    assert generation.completion_tokens > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_of": 3}, "could not be ranked: no scores after"),
        ({"n": 3}, "could not be scored: no scores after.*send reward: false"),
    ],
    ids=["best_of", "prompt"],
)
async def test_deadline_in_mid_ranking_is_an_error_that_says_what_was_missing(
    models: Models, fields: dict[str, Any], message: str
) -> None:
    with held(models.engine.model.backbone):
        generation = await models.steered.begin(ask(timeout_s=0.5, direction=CONCISE, **fields))
        parts: list[Part] = []
        with pytest.raises(DeadlineExceeded, match=message):
            await read_into(parts, generation)
        await generation.aclose()
    assert all(part.finish_reason is None for part in parts)
    assert bool(parts) == ("n" in fields)
    assert (await answer_of(models.steered, ask(direction=CONCISE, **fields))).rewards


async def test_deadline_that_the_completions_used_up_leaves_no_time_to_score(
    models: Models,
) -> None:
    rewards = EngineRewards(models.engine)
    with pytest.raises(DeadlineExceeded, match="before the completions were scored"):
        await rewards.rank(TURNS, ["Fine."], direction=None, deadline=time.perf_counter())
    assert models.scoring_requests == 0


async def test_reward_model_that_stops_in_between_is_an_error_and_no_made_up_choice(
    models: Models,
) -> None:
    generation = await models.steered.begin(ask(best_of=3, direction=CONCISE))
    models.engine.close()
    with pytest.raises(NotReady, match="could not be ranked: the server has stopped"):
        await reader_of(generation)
    await generation.aclose()
    assert generation.ranking is None
    answer = await answer_of(models.steered, ask(with_rewards=False, direction=CONCISE))
    assert answer.texts
