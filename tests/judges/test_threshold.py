from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from steerward.judges import RewardThreshold
from steerward.protocol.errors import InvalidRequest


def length(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    return [float(len(completion)) for completion in completions]


async def own(prompts: list[Any], completions: list[Any], given: list[Any]) -> list[float | None]:
    await asyncio.sleep(0)
    return given


def judged(judge: RewardThreshold, *values: float | None) -> list[Any]:
    rows = [{"given": value, "prompt": "p"} for value in values]
    return judge.judge(["p"] * len(values), ["c"] * len(values), rows=rows)


def test_raw_rewards_are_compared_with_both_limits_included() -> None:
    judge = RewardThreshold(column=length, at_least=2, at_most=3)
    assert judge.judge(["p"] * 4, ["a", "aa", "aaa", "aaaa"]) == [0, 1, 1, 0]
    assert judge.name == "length"


def test_none_does_not_apply_and_nan_is_a_failure() -> None:
    judge = RewardThreshold(column=own, at_least=-1.0, name="mine")
    found = judged(judge, None, math.nan, math.inf, 10**400, -1.0, -1.5)
    assert found == [None, -1, -1, -1, 1, 0]
    assert judge.name == "mine"


async def asked_in_a_loop() -> list[Any]:
    return judged(RewardThreshold(column=own, at_most=0.0), -1.0, 1.0)


def test_asynchronous_columns_can_be_asked_within_a_loop() -> None:
    assert asyncio.run(asked_in_a_loop()) == [1, 0]


def test_limits_that_bound_nothing_are_refused() -> None:
    for lower, upper in ((None, None), (math.nan, None), (1.0, math.inf)):
        with pytest.raises(InvalidRequest, match="bound nothing"):
            RewardThreshold(column=length, at_least=lower, at_most=upper)
    with pytest.raises(InvalidRequest, match="no reward is at least 2"):
        RewardThreshold(column=length, at_least=2, at_most=1)


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'own' gave 1 rewards for 2 completions"):
        RewardThreshold(column=lambda **_: [1.0], at_least=0, name="own").judge("pp", ["a", "b"])
