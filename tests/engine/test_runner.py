"""Prompts are kept between requests, counted, bounded and dropped; the same scores either way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.protocol.errors import EngineFailure
from tests.engine.conftest import StartEngine, request
from tests.tolerances import SCORE_TOLERANCE

PROMPT = "Explain rainbows to a child who has never seen one, in a few simple sentences."
TOLERANCE = SCORE_TOLERANCE[torch.float32]


def items(*candidates: str, prompt: Any = PROMPT) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "candidates": list(candidates)}]


async def answer(engine: Engine, **fields: Any) -> dict[str, Any]:
    return (await engine.score(request(**fields))).answer


def scores(answer: dict[str, Any]) -> list[float]:
    return [c["score"] for item in answer["items"] for c in item["candidates"]]


@pytest.mark.anyio
async def test_a_prompt_seen_before_is_not_computed_again(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    cold = await start_engine(prefix_cache_bytes=0)
    first = await answer(engine, items=items("Light."), explain=True)
    again = await answer(engine, items=items("Light.", "Drops."), explain=True)
    expected = await answer(cold, items=items("Light.", "Drops."), explain=True)
    prompt_tokens = first["usage"]["prompt_tokens"]
    assert [a["usage"]["cached_tokens"] for a in (first, again, expected)] == [0, prompt_tokens, 0]
    assert again["usage"]["prefix_tokens_saved"] == 2 * prompt_tokens
    assert scores(again) == pytest.approx(scores(expected), abs=TOLERANCE)
    assert again["items"][0]["gates"] == pytest.approx(expected["items"][0]["gates"], abs=TOLERANCE)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"steerward_{name}", {"model": "armorm"})

    assert value("prefix_cache_hits_tokens_total") == prompt_tokens
    assert value("prefix_cache_queries_tokens_total") == 2 * prompt_tokens
    computed = prompt_tokens + first["usage"]["candidate_tokens"]
    computed += again["usage"]["candidate_tokens"]
    assert value("computed_tokens_total") == computed
    assert (value("prefix_cache_bytes") or 0) > 0


@pytest.mark.anyio
async def test_a_longer_conversation_pays_for_its_new_turns_only(
    start_engine: StartEngine,
) -> None:
    engine, cold = await start_engine(), await start_engine(prefix_cache_bytes=0)
    turns = [{"role": "user", "content": PROMPT}]
    longer = [
        *turns,
        {"role": "assistant", "content": "Sunlight is bent and split by drops of rain."},
        {"role": "user", "content": "And why is it a bow?"},
    ]
    first = await answer(engine, items=items("Light.", prompt=turns))
    second = await answer(engine, items=items("Because drops are round.", prompt=longer))
    expected = await answer(cold, items=items("Because drops are round.", prompt=longer))
    cached = second["usage"]["cached_tokens"]
    # All of the first prompt but the few tokens of the template that opened the answer.
    assert first["usage"]["prompt_tokens"] - 8 <= cached <= first["usage"]["prompt_tokens"]
    assert scores(second) == pytest.approx(scores(expected), abs=TOLERANCE)


@pytest.mark.anyio
async def test_kept_prompts_stay_within_their_memory(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics, prefix_cache_bytes=60_000)
    for n in range(12):
        await answer(engine, items=items("Light.", prompt=f"{n} {PROMPT}"))
        held = metrics.registry.get_sample_value(
            "steerward_prefix_cache_bytes", {"model": "armorm"}
        )
        assert held is not None
        assert held <= 60_000
    latest = await answer(engine, items=items("Light.", prompt=f"11 {PROMPT}"))
    oldest = await answer(engine, items=items("Light.", prompt=f"0 {PROMPT}"))
    assert latest["usage"]["cached_tokens"] == latest["usage"]["prompt_tokens"]
    assert oldest["usage"]["cached_tokens"] == 0


@pytest.mark.anyio
async def test_other_weights_forget_what_was_kept(start_engine: StartEngine) -> None:
    engine = await start_engine()
    before = await answer(engine, items=items("Light."))
    engine.model.heads.weight.mul_(2.0)
    engine.model.weight_version = "other"
    after = await answer(engine, items=items("Light."))
    assert after["usage"]["cached_tokens"] == 0
    assert scores(after) != pytest.approx(scores(before), abs=TOLERANCE)


@pytest.mark.anyio
async def test_a_failed_pass_leaves_nothing_behind(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that a failed pass was to compute are not there for the next one."""
    engine = await start_engine()
    expected = await answer(engine, items=items("Light.", prompt="Another prompt, long enough."))
    backbone = engine.model.backbone
    whole, calls = backbone.forward, iter([True])

    def failing(batch: Any) -> Any:
        if next(calls, False):
            raise RuntimeError("out of memory")
        return whole(batch)

    monkeypatch.setattr(backbone, "forward", failing)
    with pytest.raises(EngineFailure):
        await answer(engine, items=items("Light."))
    again = await answer(engine, items=items("Light."))
    assert again["usage"]["cached_tokens"] == 0
    other = await answer(engine, items=items("Light.", prompt="Another prompt, long enough."))
    assert scores(other) == pytest.approx(scores(expected), abs=TOLERANCE)


@pytest.mark.anyio
async def test_what_cannot_be_counted_fails_alone(start_engine: StartEngine) -> None:
    """The cost of a pass is asked while it is put together; an error there ended the worker."""
    engine = await start_engine()
    await answer(engine, items=items("Light."))
    (node,) = engine._worker._runner._tree.root.children.values()
    whole, node.ids = node.ids, None
    async with asyncio.timeout(30.0):
        results = await asyncio.gather(
            answer(engine, items=items("Light.")),
            answer(engine, items=items("Light.", prompt="Another prompt, long enough.")),
            answer(engine, items=items("Drops.")),
            return_exceptions=True,
        )
    assert [isinstance(one, EngineFailure) for one in results] == [True, False, True]
    assert not isinstance(results[1], BaseException)
    assert engine.is_ready
    node.ids = whole
    again = await answer(engine, items=items("Light."))
    assert again["usage"]["cached_tokens"] == again["usage"]["prompt_tokens"]


@pytest.mark.anyio
@pytest.mark.parametrize("prefix_cache_bytes", [0, 10**9])
async def test_deterministic_scores_are_equal_to_the_bit(
    start_engine: StartEngine, prefix_cache_bytes: int
) -> None:
    engine = await start_engine(deterministic=True, prefix_cache_bytes=prefix_cache_bytes)
    candidates = ["Light.", "Sunlight is bent and split by drops of rain.", "No.", "Light."]
    alone = [scores(await answer(engine, items=items(one)))[0] for one in candidates]
    grouped = scores(await answer(engine, items=items(*candidates)))
    mixed = await asyncio.gather(
        *(answer(engine, items=items(one, prompt=p)) for one in candidates for p in (PROMPT, "Hi"))
    )
    assert grouped == alone
    assert [scores(one)[0] for one in mixed[::2]] == alone
    usual = await start_engine()
    expected = scores(await answer(usual, items=items(*candidates)))
    assert alone == pytest.approx(expected, abs=TOLERANCE)
