"""The engine: same numbers in every company, early refusals, and an answer for everyone."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import torch

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.engine.loading import load_engine
from steerward.metrics import Metrics
from steerward.protocol.errors import (
    CheckpointRefused,
    DeadlineExceeded,
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NonFiniteScore,
    NotReady,
    Overloaded,
    UnknownObjective,
)
from steerward.protocol.scoring import ScoreResponse
from tests.engine.conftest import StartEngine, request
from tests.golden_cases import GOLDEN, GOLDEN_NAMES, GOLDEN_TOLERANCE, golden_cases

pytestmark = pytest.mark.anyio


def case_item(case: Any) -> dict[str, Any]:
    *context, last = case["messages"]
    return {"prompt": context, "candidates": [last["content"], "Something else."]}


async def queue_is_empty(engine: Engine) -> None:
    """Return when nothing waits: a text that a thread has begun to encode is pending so long."""
    async with asyncio.timeout(5.0):
        while engine.queued_tokens:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("max_batch_tokens", [1, 100, 100_000])
async def test_golden_scores_hold_for_any_batch_size(
    start_engine: StartEngine, name: str, max_batch_tokens: int
) -> None:
    engine = await start_engine(name, max_batch_tokens=max_batch_tokens)
    cases = golden_cases(name)
    scored = await engine.score(request(items=[case_item(case) for case in cases], explain=True))
    answer = ScoreResponse.model_validate(scored.answer)
    for case, item in zip(cases, answer.items, strict=True):
        candidate = item.candidates[0]
        rewards = torch.tensor(list(candidate.rewards.values()))
        if engine.model.architecture == "qrm":
            rewards = rewards @ engine.model.transform
        expected = torch.tensor(case["rewards"])
        torch.testing.assert_close(rewards, expected, atol=GOLDEN_TOLERANCE, rtol=0)
        if case["score"] is None:
            assert candidate.score is None
            assert candidate.contributions is None
            continue
        assert candidate.score == pytest.approx(case["score"], abs=GOLDEN_TOLERANCE)
        assert candidate.contributions is not None
        total = sum(candidate.contributions.values())
        assert total == pytest.approx(candidate.score, abs=GOLDEN_TOLERANCE)
        gates = candidate.gates if engine.model.architecture == "urm" else item.gates
        if "gating_output" in case:
            assert gates is not None
            assert list(gates.values()) == pytest.approx(
                case["gating_output"], abs=GOLDEN_TOLERANCE
            )


async def test_concurrent_requests_get_their_own_scores(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=300)
    items = [case_item(case) for case in golden_cases("armorm")] * 6
    random.Random(0).shuffle(items)
    alone = [(await engine.score(request(items=[item]))).answer for item in items]
    together = await asyncio.gather(*(engine.score(request(items=[item])) for item in items))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(
            one["items"][0]["candidates"],
            other.answer["items"][0]["candidates"],
            strict=True,
        ):
            assert a["score"] == pytest.approx(b["score"], abs=GOLDEN_TOLERANCE)
            assert a["tokens"] == b["tokens"]


async def test_usage_counts_a_prompt_once_and_what_was_saved(start_engine: StartEngine) -> None:
    engine = await start_engine()
    items = [{"prompt": "Explain rainbows.", "candidates": ["a", "b", "a longer one"]}]
    usage = (await engine.score(request(items=items))).answer["usage"]
    (conversation, *_) = engine.model.encode(
        [{"role": "user", "content": "Explain rainbows."}], ["a"]
    )
    prompt_tokens = conversation.prompt_length
    assert usage["prompt_tokens"] == prompt_tokens
    assert usage["prefix_tokens_saved"] == 2 * prompt_tokens
    assert usage["total_tokens"] == prompt_tokens + usage["candidate_tokens"]


async def test_requests_with_one_prompt_share_it(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    requests = [
        request(items=[{"prompt": "The same prompt.", "candidates": [f"answer {i}"]}])
        for i in range(8)
    ]
    answers = await asyncio.gather(*(engine.score(one) for one in requests))
    assert sum(scored.answer["usage"]["prefix_tokens_saved"] for scored in answers) > 0


async def test_weights_and_directions_read_the_same_rewards(start_engine: StartEngine) -> None:
    engine = await start_engine()
    plain = (await engine.score(request())).answer["items"][0]["candidates"][0]
    steered = await engine.score(
        request(
            weights={"objective_1": 2.0},
            directions=[{"objective_0": 3.0, "objective_4": -4.0}, {"objective_2": -1.0}],
        )
    )
    answer = steered.answer
    candidate = answer["items"][0]["candidates"][0]
    rewards = candidate["rewards"]
    assert rewards == pytest.approx(plain["rewards"], abs=1e-6)
    assert candidate["score"] == pytest.approx(plain["score"], abs=1e-6)
    expected = 0.6 * rewards["objective_0"] - 0.8 * rewards["objective_4"]
    assert candidate["direction_scores"] == pytest.approx(
        [expected, -rewards["objective_2"]], abs=1e-5
    )
    assert answer["directions"][0] == pytest.approx({"objective_0": 0.6, "objective_4": -0.8})
    assert answer["direction_scale"] == "raw"
    column = engine.model.transform[:, 1]
    weighted = 2.0 * float((torch.tensor(list(rewards.values())) * column).sum())
    assert candidate["weighted_score"] == pytest.approx(weighted, abs=1e-5)
    assert answer["weights"] == {"objective_1": 2.0}


async def test_unknown_objective_is_refused_before_anything_runs(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    with pytest.raises(UnknownObjective, match="objective_18") as caught:
        await engine.score(request(directions=[{"objective_0": 1.0}, {"kindness": 1.0}]))
    assert caught.value.param == "directions[1].kindness"
    assert (
        metrics.registry.get_sample_value("steerward_batch_tokens_count", {"model": "armorm"})
        is None
    )


async def test_one_bad_item_names_its_place_and_disturbs_nobody(start_engine: StartEngine) -> None:
    engine = await start_engine()
    good = request()
    expected = (await engine.score(good)).answer["items"][0]["candidates"][0]["score"]
    too_long = request(
        items=[
            {"prompt": "a", "candidates": ["b"]},
            {"prompt": "a", "candidates": ["b", "long " * 3000]},
        ]
    )
    results = await asyncio.gather(
        *(engine.score(one) for one in (good, too_long, good, too_long, good)),
        return_exceptions=True,
    )
    for result in results[1::2]:
        assert isinstance(result, InputTooLong)
        assert result.param == "items[1].candidates[1]"
        assert "limit 2,048" in result.message
    for result in results[0::2]:
        assert not isinstance(result, BaseException)
        score = result.answer["items"][0]["candidates"][0]["score"]
        assert score == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_limits_on_items_and_candidates_are_enforced(start_engine: StartEngine) -> None:
    engine = await start_engine(max_items=2, max_candidates=3)
    item = {"prompt": "a", "candidates": ["b", "c"]}
    with pytest.raises(InputTooLong, match="3 items, limit 2"):
        await engine.score(request(items=[item] * 3))
    with pytest.raises(InputTooLong, match="4 candidates, limit 3"):
        await engine.score(request(items=[item] * 2))


async def test_own_limit_on_tokens_is_enforced(clean_environment: None) -> None:
    config = EngineConfig(device="cpu", max_input_tokens=40)
    engine = load_engine(str(GOLDEN / "armorm"), name="a", config=config, metrics=Metrics())
    engine.start()
    await engine.wait_until_ready()
    try:
        await engine.score(request())
        with pytest.raises(InputTooLong, match="limit 40"):
            await engine.score(request(items=[{"prompt": "a", "candidates": ["b " * 40]}]))
    finally:
        engine.close()
    too_much = EngineConfig(device="cpu", max_input_tokens=4096)
    with pytest.raises(CheckpointRefused, match="more than this model reaches, 2,048"):
        load_engine(str(GOLDEN / "armorm"), name="a", config=too_much, metrics=Metrics())


async def test_full_queue_refuses_with_retry_after(start_engine: StartEngine) -> None:
    engine = await start_engine(max_queued_tokens=50, max_batch_tokens=64)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 200]} for i in range(20)]
    results = await asyncio.gather(
        *(engine.score(request(items=[item])) for item in items), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Overloaded)]
    scored = [result for result in results if not isinstance(result, BaseException)]
    assert refused
    assert scored
    assert len(refused) + len(scored) == len(items)
    assert all(1.0 <= (error.retry_after_s or 0) <= 60.0 for error in refused)


async def test_deadline_gives_up_and_frees_the_queue(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=64)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 300]} for i in range(300)]
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
        await engine.score(request(items=items, timeout_s=0.05))
    # What had not run is skipped: the next request does not wait behind it.
    await asyncio.wait_for(engine.score(request()), timeout=5.0)
    await queue_is_empty(engine)


async def test_cancelled_request_is_skipped(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=64)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 300]} for i in range(300)]
    task = asyncio.create_task(engine.score(request(items=items)))
    while engine.queued_tokens == 0:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(engine.score(request()), timeout=5.0)
    await queue_is_empty(engine)


async def test_nan_of_one_candidate_fails_its_request_only(start_engine: StartEngine) -> None:
    """A weight that turns one token into NaN: its text fails, others in the batch do not."""
    engine = await start_engine(max_batch_tokens=100_000)
    embedding = engine.model.backbone.model.get_input_embeddings()
    (conversation,) = engine.model.encode([{"role": "user", "content": "hi"}], ["#"])
    with torch.no_grad():
        embedding.weight[conversation.ids[conversation.prompt_length]] = float("nan")
    poisoned = request(items=[{"prompt": "a", "candidates": ["fine", "#"]}])
    results = await asyncio.gather(
        engine.score(request()),
        engine.score(poisoned),
        engine.score(request()),
        return_exceptions=True,
    )
    assert isinstance(results[1], NonFiniteScore)
    assert results[1].param == "items[0].candidates[1]"
    assert not isinstance(results[0], BaseException)
    assert not isinstance(results[2], BaseException)
    assert engine.is_ready


async def break_device(engine: Engine) -> None:
    """Take a layer out of the real backbone: every forward pass raises from now on."""
    del engine.model.backbone.model.layers[0].mlp.up_proj


async def test_dead_device_answers_everyone_and_flips_readiness(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=64)
    await break_device(engine)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 50]} for i in range(20)]
    results = await asyncio.wait_for(
        asyncio.gather(
            *(engine.score(request(items=[item])) for item in items), return_exceptions=True
        ),
        timeout=30.0,
    )
    assert all(isinstance(result, EngineFailure | NotReady) for result in results)
    assert any(isinstance(result, EngineFailure) for result in results)
    assert not engine.is_ready
    with pytest.raises(NotReady, match="restart"):
        await engine.score(request())


async def test_batch_that_fails_alone_does_not_end_the_worker(start_engine: StartEngine) -> None:
    """Ids that the embedding does not have: the probe afterwards succeeds, the engine goes on."""
    engine = await start_engine()
    embedding = engine.model.backbone.model.get_input_embeddings()
    embedding.padding_idx = None
    whole = embedding.weight.data
    (conversation,) = engine.model.encode([{"role": "user", "content": "hi"}], ["x"])
    # The probe uses ids below 7; every real text has the template's ids above 1000.
    embedding.weight.data = whole[:1000]
    with pytest.raises(EngineFailure, match="scoring failed on the device"):
        await engine.score(request())
    embedding.weight.data = whole
    assert max(conversation.ids) >= 1000
    assert engine.is_ready
    assert (await engine.score(request())).answer["items"]


async def test_device_that_fails_at_the_first_probe_never_becomes_ready(
    armorm_folder: Any,
) -> None:
    from steerward.models.checkpoint import load_reward_model

    model = load_reward_model(armorm_folder, device="cpu")
    engine = Engine(model, name="broken", config=EngineConfig(), metrics=Metrics())
    await break_device(engine)
    engine.start()
    with pytest.raises(NotReady, match="stopped"):
        await engine.wait_until_ready()
    assert not engine.is_ready
    engine.close()


async def test_draining_finishes_what_is_in_flight_and_takes_no_more(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine(max_batch_tokens=64)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 50]} for i in range(50)]
    task = asyncio.create_task(engine.score(request(items=items)))
    await asyncio.sleep(0)
    engine.begin_drain()
    assert len((await asyncio.wait_for(task, timeout=60.0)).answer["items"]) == 50
    with pytest.raises(NotReady, match="shutting down"):
        await engine.score(request())


async def test_close_answers_what_still_waits(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=64)
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 300]} for i in range(300)]
    task = asyncio.create_task(engine.score(request(items=items)))
    while engine.queued_tokens == 0:
        await asyncio.sleep(0.001)
    await asyncio.to_thread(engine.close)
    with pytest.raises(NotReady):
        await asyncio.wait_for(task, timeout=10.0)


async def test_template_refusal_names_the_item(start_engine: StartEngine) -> None:
    from steerward.models.chat import ChatEncoder
    from steerward.models.presets import PRESETS

    engine = await start_engine()
    chat = engine.model.chat
    template = PRESETS["RLHFlow/RewardModel-Mistral-7B-for-DPA-v1"].template
    engine.model.chat = ChatEncoder(chat.tokenizer, template=template)
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    with pytest.raises(InvalidRequest, match="one user turn") as caught:
        await engine.score(request(items=[{"messages": turns}]))
    assert caught.value.param == "items[0].messages"


async def test_candidates_with_prompts_of_their_own_have_gates_of_their_own(
    start_engine: StartEngine,
) -> None:
    """A template may render the prompt by what the answer is; nothing may then be shared."""
    from steerward.models.chat import ChatEncoder

    engine = await start_engine()
    template = (
        "{{ bos_token }}{% if 'yes' in messages[-1]['content'] %}Be sure. {% endif %}"
        "{% for m in messages %}{{ m['content'] }}<|eot_id|>{% endfor %}"
    )
    engine.model.chat = ChatEncoder(engine.model.chat.tokenizer, template=template)
    items = [{"prompt": "Is it?", "candidates": ["no", "yes", "no, never", "yes, always"]}]
    together = (await engine.score(request(items=items, explain=True))).answer["items"][0]
    assert "gates" not in together
    for candidate, text in zip(together["candidates"], items[0]["candidates"], strict=True):
        single = request(items=[{"prompt": "Is it?", "candidates": [text]}], explain=True)
        alone = (await engine.score(single)).answer["items"][0]
        assert candidate["score"] == pytest.approx(alone["candidates"][0]["score"], abs=1e-5)
        assert candidate["gates"] == pytest.approx(alone["gates"], abs=1e-6)
        total = sum(candidate["contributions"].values())
        assert total == pytest.approx(candidate["score"], abs=1e-5)
