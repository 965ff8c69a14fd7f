"""Equal items in flight: once on the device, and each who waits gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steerward.engine.engine import Engine
from steerward.engine.inflight import InFlight
from steerward.engine.items import Submission
from steerward.metrics import Metrics
from steerward.models.packing import Group
from steerward.protocol.errors import DeadlineExceeded, EngineFailure
from tests.engine.conftest import StartEngine, request

pytestmark = pytest.mark.anyio

TWICE = [{"prompt": "Explain rainbows.", "candidates": ["Light splits.", "Rain and sun."]}]
OTHER = [{"prompt": "Something else.", "candidates": ["Yes."]}]


class Device:
    """The device of a real engine, held before its next batches until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self._held = threading.Event()
        self._free = threading.Event()
        engine.model.backbone.register_forward_pre_hook(self._hold)

    def _hold(self, *_: Any) -> None:
        self._held.set()
        self._free.wait(60.0)

    async def is_held(self) -> None:
        async with asyncio.timeout(20.0):
            while not self._held.is_set():
                await asyncio.sleep(0.001)

    def let_go(self) -> None:
        self._free.set()


def computed(metrics: Metrics) -> float:
    name = "steerward_computed_tokens_total"
    return metrics.registry.get_sample_value(name, {"model": "armorm"}) or 0.0


async def held(start_engine: StartEngine, metrics: Metrics) -> tuple[Engine, Device, Any]:
    """Return an engine whose device is busy with another request."""
    engine = await start_engine(metrics=metrics)
    device = Device(engine)
    running = asyncio.create_task(engine.score(request(items=OTHER)))
    await device.is_held()
    return engine, device, running


async def begin(engine: Engine, **fields: Any) -> asyncio.Task[Any]:
    """Return a request that is past tokenisation, as far as one can see."""
    task = asyncio.create_task(engine.score(request(**{"items": TWICE, **fields})))
    while not engine._in_flight or engine._pool.pending_tokens or not engine.queued_tokens:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    return task


async def test_device_sees_equal_items_once(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine, device, running = await held(start_engine, metrics)
    tasks = [await begin(engine) for _ in range(3)]
    explained = await begin(engine, explain=True)
    device.let_go()
    other, *answers, last = [s.answer for s in await asyncio.gather(running, *tasks, explained)]
    assert answers[0]["items"] == answers[1]["items"] == answers[2]["items"]
    assert "gates" in last["items"][0]
    usages = [answer["usage"] for answer in (*answers, last)]
    prompt = usages[0]["prompt_tokens"]
    assert [usage["total_tokens"] for usage in usages] == [usages[0]["total_tokens"]] * 4
    # The first pays for the prompt once, the others not at all.
    assert [usage["prefix_tokens_saved"] for usage in usages] == [prompt] + [2 * prompt] * 3
    once = other["usage"]["total_tokens"] + usages[0]["total_tokens"]
    assert computed(metrics) == once
    joined = "steerward_joined_candidates_total"
    assert metrics.registry.get_sample_value(joined, {"model": "armorm"}) == 6
    assert len(engine._in_flight) == 0


async def test_stages_of_a_joined_request_are_its_own(start_engine: StartEngine) -> None:
    engine, device, running = await held(start_engine, Metrics())
    first = await begin(engine)
    await asyncio.sleep(0.05)
    second = await begin(engine)
    device.let_go()
    await running
    one, two = (await first).stages, (await second).stages
    assert one["queue"] > two["queue"] + 0.04
    for stages in (one, two):
        parts = stages["tokenisation"] + stages["queue"] + stages["inference"]
        assert parts <= stages["total"] + 1e-6


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_one_who_leaves_does_not_take_the_scores_with_him(
    start_engine: StartEngine, cancelled: int
) -> None:
    metrics = Metrics()
    engine, device, running = await held(start_engine, metrics)
    tasks = [await begin(engine), await begin(engine)]
    tasks[cancelled].cancel()
    await asyncio.gather(tasks[cancelled], return_exceptions=True)
    assert engine._worker.queued_tokens > 0
    device.let_go()
    other, answer = (await running).answer, (await tasks[1 - cancelled]).answer
    tokens = other["usage"]["total_tokens"] + answer["usage"]["total_tokens"]
    assert computed(metrics) == tokens


async def test_last_who_leaves_cancels_the_work(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine, device, running = await held(start_engine, metrics)
    tasks = [await begin(engine), await begin(engine)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert engine._worker.queued_tokens == 0
    assert len(engine._in_flight) == 1
    device.let_go()
    assert computed(metrics) <= (await running).answer["usage"]["total_tokens"]


async def test_each_waiter_has_its_own_deadline(start_engine: StartEngine) -> None:
    engine, device, running = await held(start_engine, Metrics())
    patient = await begin(engine)
    hurried = asyncio.create_task(engine.score(request(items=TWICE, timeout_s=0.05)))
    with pytest.raises(DeadlineExceeded):
        await hurried
    device.let_go()
    await running
    assert (await patient).answer["items"]


async def test_who_is_due_earlier_does_not_wait_for_what_is_due_later() -> None:
    in_flight = InFlight()
    groups = [Group((1, 2), [(3,)], 1)]
    late = in_flight.join(groups, Submission(9.0))
    early = in_flight.join(groups, Submission(5.0))
    later = in_flight.join(groups, Submission(7.0))
    assert [late.is_own, early.is_own, later.is_own] == [True, True, False]
    assert later.item is early.item
    for ticket in (late, early, later):
        in_flight.leave(ticket)
    assert len(in_flight) == 0


@pytest.mark.parametrize(
    "other",
    [
        Group((1, 2), [(3, 4)], 0),
        Group((1,), [(2, 3, 4)], 1),
        Group((1, 2), [(3,), (4,)], 1),
        Group((1, 2), [(3, 4), ()], 1),
    ],
)
async def test_other_groups_are_other_work(other: Group) -> None:
    in_flight = InFlight()
    one = in_flight.join([Group((1, 2), [(3, 4)], 1)], Submission(1.0))
    assert in_flight.join([other], Submission(1.0)).item is not one.item
    assert in_flight.join([Group((1, 2), [(3, 4)], 1)], Submission(1.0)).item is one.item


async def test_failure_reaches_all_who_wait(start_engine: StartEngine) -> None:
    """Ids that the embedding does not have, as in the test of a batch that fails alone."""
    engine, device, running = await held(start_engine, Metrics())
    tasks = [await begin(engine), await begin(engine)]
    embedding = engine.model.backbone.model.get_input_embeddings()
    embedding.padding_idx = None
    whole = embedding.weight.data
    embedding.weight.data = whole[:1000]
    device.let_go()
    results = await asyncio.gather(running, *tasks, return_exceptions=True)
    assert all(isinstance(result, EngineFailure) for result in results)
    embedding.weight.data = whole
    assert len(engine._in_flight) == 0
    assert (await engine.score(request(items=TWICE))).answer["items"]


async def test_equal_items_of_one_request_are_computed_once(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    answer = (await engine.score(request(items=TWICE * 3))).answer
    assert [item["index"] for item in answer["items"]] == [0, 1, 2]
    assert answer["items"][0]["candidates"] == answer["items"][2]["candidates"]
    assert computed(metrics) == answer["usage"]["total_tokens"] / 3
