"""A reward and metrics for verifiers (v1) and prime-rl, which a task plugs in by config.

The score is the reward; the objectives are metrics, since rewards of a task are added up:

    [env.taskset.task.rewards.steerward]
    fn = "rewards.py:score"
    [env.taskset.task.metrics.steerward_objectives]
    fn = "rewards.py:objectives"
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Unpack

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.clients._rewards import Settings, raising_scorer
from steerward.clients._samples import Sample, Scored, checked
from steerward.clients._shared import SharedBatches
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest

# Rollouts in flight of one process, at most: one that is forgotten too early is scored twice.
_MAX_ROLLOUTS = 4096

Reward = Callable[[Any], Coroutine[Any, Any, float]]
Metrics = Callable[[Any], Coroutine[Any, Any, dict[str, float]]]


def functions(url: str = DEFAULT_BASE_URL, **settings: Unpack[Settings]) -> tuple[Reward, Metrics]:
    """Return the reward and the metrics of a rollout; both come from one scoring call.

    Args:
        url: Where the server is.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        InvalidRequest: If `on_error` is not "raise"; a failure ends the rollout with its error.
    """
    scoring = raising_scorer("verifiers", url, **settings)
    batches = SharedBatches(num_columns=2, max_batches=_MAX_ROLLOUTS)

    async def scored(caller: str, trace: Any) -> Scored:
        sample = _sample(trace)
        answer = batches.take(
            caller, [sample.prompt], [sample.answer], lambda: scoring.start([sample])
        )
        return checked(await asyncio.shield(asyncio.wrap_future(answer)))[0]

    async def score(trace: Any) -> float:
        return (await scored("score", trace)).score

    async def objectives(trace: Any) -> dict[str, float]:
        rewards = (await scored("objectives", trace)).rewards
        return {f"steerward_{name}": reward for name, reward in rewards.items()}

    return score, objectives


def _sample(trace: Any) -> Sample:
    """Return the last answer of a rollout with all before it as its prompt."""
    turns = [
        message.model_dump(exclude_none=True) if hasattr(message, "model_dump") else message
        for message in trace.messages
    ]
    if not turns:
        raise InvalidRequest("the rollout has no messages; there is nothing to score")
    return Sample(
        plain_prompt(turns[:-1], param="trace.messages"),
        plain_answer(turns[-1:], param="trace.messages"),
    )
