"""Weights exchanged under load: which scored what, what is refused, what leaves the memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steerward.config import EngineConfig
from steerward.engine.exchange import ExchangeableModel
from steerward.engine.loading import load_exchangeable
from steerward.engine.served import ServedModel
from steerward.metrics import Metrics
from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, NotFound, NotReady, Overloaded
from steerward.protocol.tokenization import TokenizeRequest
from tests.checkpoints import copy_with_other_heads, edit_tensors
from tests.engine.conftest import request
from tests.golden_cases import GOLDEN

pytestmark = pytest.mark.anyio

OLD = weight_version(GOLDEN / "armorm")
Start = Callable[..., Any]


@pytest.fixture
async def start(clean_environment: None) -> AsyncIterator[Start]:
    """Return a function that starts the golden ArmoRM so that its weights can be exchanged."""
    models: list[ExchangeableModel] = []

    async def started(metrics: Metrics | None = None, **config: Any) -> ExchangeableModel:
        # Then the same request has the same scores to the bit.
        exact = {"prefix_cache_bytes": 0, "deterministic": True}
        device = {} if "devices" in config else {"device": "cpu"}
        settings = EngineConfig(**{**device, **exact, **config})
        source, metrics = str(GOLDEN / "armorm"), metrics or Metrics()
        model = load_exchangeable(source, name="armorm", config=settings, metrics=metrics)
        models.append(model)
        model.start()
        await model.wait_until_ready()
        return model

    yield started
    for model in models:
        await asyncio.to_thread(model.close)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The golden ArmoRM with other heads."""
    return copy_with_other_heads(tmp_path / "other")


@contextmanager
def held_device(served: ServedModel) -> Iterator[threading.Event]:
    """Make the device wait in its batches until the end; give what is set when it is in one."""
    is_held, release = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        is_held.set()
        release.wait(30.0)

    hook = served.model.backbone.register_forward_pre_hook(hold)
    try:
        yield is_held
    finally:
        hook.remove()
        release.set()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.001)


async def is_over(model: ExchangeableModel) -> None:
    """Return when the weights of before are gone."""
    await until(lambda: not model._is_exchanging)


async def test_what_runs_and_waits_is_finished_by_the_weights_of_before(
    start: Start, other: Path
) -> None:
    model = await start()
    old = model.current
    texts = [request(items=[{"prompt": f"{n}", "candidates": ["Yes."]}]) for n in range(3)]
    expected = [(await model.score(text)).answer["items"] for text in texts]
    with held_device(old) as is_held:
        first = asyncio.create_task(model.score(texts[0]))
        await until(is_held.is_set)
        second = asyncio.create_task(model.score(texts[1]))
        await until(lambda: old.queued_tokens)
        await model.exchange(other)
        # The same text, in flight on the old weights, is computed anew.
        new = await model.score(texts[0])
        assert not first.done()
        assert model.weight_version == new.weight_version == weight_version(other) != OLD
        assert model.card().weight_version == weight_version(other)
    answers = [await first, await second]
    assert [answer.weight_version for answer in answers] == [OLD, OLD]
    assert [answer.answer["items"] for answer in answers] == expected[:2]
    assert new.answer["items"] != expected[0]


async def test_prompts_kept_for_the_old_weights_are_not_used_by_the_new(
    start: Start, other: Path
) -> None:
    model = await start(prefix_cache_bytes=2**20, deterministic=False)
    same = request(items=[{"prompt": "word " * 100, "candidates": ["Yes."]}])

    async def cached() -> int:
        return (await model.score(same)).answer["usage"]["cached_tokens"]

    assert [await cached(), await cached() > 50] == [0, True]
    await model.exchange(other)
    assert [await cached(), await cached() > 50] == [0, True]


async def test_old_weights_leave_the_memory_without_the_collector(
    start: Start, other: Path
) -> None:
    """What the server has frozen at its start is never collected."""
    model = await start()
    await model.score(request())
    references = [weakref.ref(part) for part in (model.current, model.model, model.model.backbone)]
    gc.collect()
    gc.disable()
    try:
        await model.exchange(other)
        await is_over(model)
        await until(lambda: [reference() for reference in references] == [None] * 3)
        assert (await model.score(request())).weight_version == weight_version(other)
    finally:
        gc.enable()


async def test_card_and_gauges_are_those_of_the_new_weights(start: Start, other: Path) -> None:
    metrics = Metrics()
    model = await start(metrics, devices=["cpu", "cpu"])
    await model.score(request())
    before = model.card()

    def value(name: str, **labels: str) -> float | None:
        name = f"steerward_{name}"
        return metrics.registry.get_sample_value(name, {"model": "armorm", **labels})

    mean = value("reward_mean", objective="objective_0")
    assert mean
    observers = len(metrics._before_reading.actions)
    for folder in (other, GOLDEN / "armorm", other):
        await model.exchange(folder)
        await is_over(model)
        await model.score(request())
    assert value("reward_mean", objective="objective_0") == pytest.approx(-2.0 * mean, rel=1e-4)
    assert value("candidates_total") == 4
    assert value("ready") == 1.0
    for device in ("cpu", "cpu #2"):
        assert value("replica_ready", device=device) == 1.0
        assert value("replica_queued_tokens", device=device) == 0
    assert value("replica_ready", device="cpu #3") is None
    assert len(metrics._before_reading.actions) == observers
    after = model.card()
    assert after.weight_version != before.weight_version
    assert after == before.model_copy(update={"weight_version": after.weight_version})


async def test_model_that_is_not_ready_is_shown_so_and_replaced(start: Start, other: Path) -> None:
    metrics = Metrics()
    model = await start(metrics)
    model.current.close()
    assert not model.is_ready
    assert "has stopped" in model.reason
    with pytest.raises(NotReady):
        await model.score(request())
    await model.exchange(other)
    assert model.is_ready
    assert not model.reason
    assert metrics.registry.get_sample_value("steerward_ready", {"model": "armorm"}) == 1.0


def damaged(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.__delitem__("model.norm.weight"))


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def of_another_kind(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN / "urm", folder)


@pytest.mark.parametrize("change", [damaged, cut, emptied, of_another_kind])
async def test_folder_that_cannot_take_over_is_refused_and_the_old_weights_go_on(
    start: Start, other: Path, change: Callable[[Path], None]
) -> None:
    metrics = Metrics()
    model = await start(metrics)
    expected = (await model.score(request())).answer["items"]
    observers = len(metrics._before_reading.actions)
    change(other)
    with pytest.raises(CheckpointRefused):
        await model.exchange(other)
    again = await model.score(request())
    assert (again.weight_version, again.answer["items"]) == (OLD, expected)
    assert len(metrics._before_reading.actions) == observers
    with pytest.raises(NotFound):
        await model.exchange(other / "nowhere")
    # A refusal does not stand in the way of the next.
    await model.exchange(GOLDEN / "armorm")


async def test_weights_that_do_not_warm_up_are_refused(
    start: Start, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # What pytest keeps of the log holds the weights.
    caplog.set_level(logging.CRITICAL + 1, "steerward")
    metrics = Metrics()
    model = await start(metrics)
    load = model._load
    seen: list[weakref.ref[Any]] = []

    def broken(folder: str, check: Any) -> Any:
        loaded = load(folder, check)
        seen.append(weakref.ref(loaded.served.model))
        del loaded.served.model.backbone.model.layers[0].mlp.up_proj
        return loaded

    model._load = broken
    with pytest.raises(CheckpointRefused, match="did not warm up"):
        await model.exchange(other)
    assert (await model.score(request())).weight_version == OLD
    assert metrics.registry.get_sample_value("steerward_ready", {"model": "armorm"}) == 1.0
    gc.collect()
    assert seen[0]() is None


async def test_one_exchange_at_a_time_until_the_old_weights_are_gone(
    start: Start, other: Path
) -> None:
    model = await start()
    with held_device(model.current) as is_held:
        running = asyncio.create_task(model.score(request()))
        await until(is_held.is_set)
        exchanging = asyncio.create_task(model.exchange(other))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as loading:
            await model.exchange(other)
        await exchanging
        with pytest.raises(Overloaded, match="still run"):
            await model.exchange(other)
        assert loading.value.retry_after_s
    assert (await running).weight_version == OLD
    await is_over(model)
    await model.exchange(GOLDEN / "armorm")
    assert model.weight_version == OLD


async def test_what_holds_the_weights_is_scored_by_them_to_its_end(
    start: Start, other: Path
) -> None:
    model = await start()
    with model.held() as served:
        await model.exchange(other)
        assert (await served.score(request())).weight_version == OLD
        assert (await model.score(request())).weight_version != OLD
    await is_over(model)
    with pytest.raises(NotReady):
        await served.score(request())


async def test_tokens_tell_the_version_that_gave_them(start: Start, other: Path) -> None:
    model = await start()
    body = TokenizeRequest.model_validate({"items": [{"prompt": "a", "candidates": ["b"]}]})
    before = await model.tokenize(body)
    await model.exchange(other)
    after = await model.tokenize(body)
    assert [before.pop("weight_version"), after.pop("weight_version")] == [
        OLD,
        weight_version(other),
    ]
    assert before == after


async def test_exchange_goes_on_without_whoever_asked_for_it(start: Start, other: Path) -> None:
    model = await start()
    asking = asyncio.create_task(model.exchange(other))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: model.weight_version != OLD)
    assert (await model.score(request())).weight_version == weight_version(other)


@pytest.mark.parametrize("end", ["begin_drain", "close"])
async def test_exchange_comes_to_nothing_if_the_server_ends_meanwhile(
    start: Start, other: Path, end: str
) -> None:
    model = await start()
    load, is_loading, release = model._load, threading.Event(), threading.Event()

    def slow(folder: str, check: Any) -> Any:
        is_loading.set()
        release.wait(30.0)
        return load(folder, check)

    model._load = slow
    exchanging = asyncio.create_task(model.exchange(other))
    await until(is_loading.is_set)
    await asyncio.to_thread(getattr(model, end))
    release.set()
    with pytest.raises(NotReady, match="shutting down"):
        await exchanging
    assert model.weight_version == OLD
    assert not model.is_ready
    with pytest.raises(NotReady):
        await model.exchange(other)
    assert len(model._alive) == 1


async def test_closing_ends_what_comes_and_what_goes(start: Start, other: Path) -> None:
    model = await start()
    old = model.current
    with held_device(old) as is_held:
        running = asyncio.create_task(model.score(request()))
        await until(is_held.is_set)
        waiting = asyncio.create_task(
            model.score(request(items=[{"prompt": "Else.", "candidates": ["Yes."]}]))
        )
        await until(lambda: old.queued_tokens)
        await model.exchange(other)
        closing = asyncio.create_task(asyncio.to_thread(model.close))
        await until(lambda: not model.is_ready and "stopped" in old.reason)
    await closing
    assert (await running).weight_version == OLD
    with pytest.raises(NotReady):
        await waiting
    await is_over(model)
