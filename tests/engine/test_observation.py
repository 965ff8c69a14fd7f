"""What the metrics are told of a batch, broken numbers included."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch

from steerward.engine.observation import Observer
from steerward.engine.result import BatchResult
from steerward.engine.runner import Prepared
from steerward.metrics import Metrics
from steerward.models.output import RewardOutput
from steerward.models.plan import Placement
from steerward.protocol.objectives import ObjectiveSet
from tests.engine.conftest import StartEngine, request
from tests.golden_cases import golden_cases


def test_gates_without_shares_leave_the_entropy_finite() -> None:
    """One NaN gate made the sum of entropies NaN for ever."""
    metrics = Metrics()
    observer = Observer(metrics, model="m", objectives=ObjectiveSet.from_names(["a", "b"]))
    gates_PK = torch.tensor([[0.5, 0.5], [math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0], [1.0, 0.0]])
    prepared = Prepared([], [Placement(n, 1, 0, 0) for n in range(len(gates_PK))], [], None, None)
    rewards_NK = torch.ones(len(gates_PK), 2)
    scores_N = (rewards_NK * gates_PK).sum(dim=-1)
    output = RewardOutput(rewards_NK, scores_N, gates_PK, gates_PK)
    result = BatchResult(output, frozenset({1, 2}), True, 0.0, 1.0)
    observer.record_batch(prepared, result)
    read = metrics.registry.get_sample_value
    assert read("steerward_gate_entropy_nats_count", {"model": "m"}) == 2
    total = read("steerward_gate_entropy_nats_sum", {"model": "m"})
    assert total == pytest.approx(math.log(2))
    assert read("steerward_non_finite_scores_total", {"model": "m"}) == 2


@pytest.mark.anyio
async def test_queue_gauge_falls_when_cancelled_tokens_are_skipped(
    start_engine: StartEngine,
) -> None:
    """It kept the tokens of a cancelled request until the next request came."""
    metrics = Metrics()
    engine = await start_engine(metrics=metrics, max_batch_tokens=64)

    def gauge() -> float | None:
        return metrics.registry.get_sample_value("steerward_queued_tokens", {"model": "armorm"})

    assert gauge() == 0
    items = [{"prompt": f"prompt {i}", "candidates": ["word " * 300]} for i in range(300)]
    task = asyncio.create_task(engine.score(request(items=items)))
    while not engine.queued_tokens:
        await asyncio.sleep(0.001)
    assert gauge()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(60):
        while gauge():
            await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_metrics_tell_batches_rewards_and_gates(start_engine: StartEngine) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    items = [
        {"prompt": case["messages"][:-1], "candidates": [case["messages"][-1]["content"], "Else."]}
        for case in golden_cases("armorm")
    ]
    answer = (await engine.score(request(items=items))).answer
    rewards = [
        candidate["rewards"]["objective_3"]
        for item in answer["items"]
        for candidate in item["candidates"]
    ]
    expected = torch.tensor(rewards, dtype=torch.float64)

    def value(name: str, **labels: str) -> float:
        found = metrics.registry.get_sample_value(
            f"steerward_{name}", {"model": "armorm", **labels}
        )
        assert found is not None, name
        return found

    assert value("reward_mean", objective="objective_3") == pytest.approx(float(expected.mean()))
    assert value("reward_variance", objective="objective_3") == pytest.approx(
        float(expected.var(correction=0)), rel=1e-5
    )
    assert value("candidates_total") == len(rewards)
    assert value("padding_tokens_total") == 0
    assert value("prefix_tokens_saved_total") == answer["usage"]["prefix_tokens_saved"]
    assert value("gate_entropy_nats_count") == len(items)
    assert value("stage_duration_seconds_count", stage="total") == 1
    assert value("ready") == 1.0


@pytest.mark.anyio
async def test_answers_do_not_wait_for_the_metrics_and_are_counted_when_read(
    start_engine: StartEngine,
) -> None:
    metrics = Metrics()
    engine = await start_engine(metrics=metrics)
    with engine._observer._recording:
        await asyncio.wait_for(engine.score(request()), timeout=10.0)
    for number in range(1, 20):
        assert (
            metrics.registry.get_sample_value("steerward_candidates_total", {"model": "armorm"})
            == number
        )
        await engine.score(request())
