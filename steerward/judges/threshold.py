"""A reward column as a judge: its raw value must reach a limit, or stay below one."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from steerward.judges.judge import Row, Turns, Verdict
from steerward.protocol.errors import InvalidRequest, brief

RewardColumn = Callable[..., Any]
"""TRL's reward function: `f(prompts, completions, **columns) -> list[float | None]`, or one that
is `async def`. Its `__name__` is the column's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardThreshold:
    """Passes completions whose raw reward is within limits, both included.

    The limits are on the scale of the column itself; nothing is normalised. A reward of None does
    not apply to the row; NaN or infinity is a failure of the judge.

    Args:
        column: Gives the rewards.
        at_least: Smallest reward that passes; None: no such limit.
        at_most: Largest reward that passes; None: no such limit.
        name: Of the judge; empty: that of the column.

    Raises:
        InvalidRequest: If there is no limit, a limit is not finite, or no reward is within both.
    """

    column: RewardColumn
    at_least: float | None = None
    at_most: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.at_least, self.at_most) if limit is not None]
        if not limits or not all(math.isfinite(limit) for limit in limits):
            raise InvalidRequest(
                f"the limits at_least {self.at_least} and at_most {self.at_most} bound nothing; "
                "give one of them, or both, as finite numbers on the scale of the reward"
            )
        if limits != sorted(limits):
            raise InvalidRequest(
                f"no reward is at least {self.at_least} and at most {self.at_most}; swap the limits"
            )
        if not self.name:
            object.__setattr__(self, "name", self.column.__name__)

    def judge(
        self,
        prompts: Sequence[Turns],
        completions: Sequence[Turns],
        gold_completions: Sequence[Turns] | None = None,  # noqa: ARG002  # of the protocol
        shuffle_order: bool = True,  # noqa: ARG002  # of the protocol
        *,
        rows: Sequence[Row] | None = None,
    ) -> list[Verdict | None]:
        """Return a verdict for each completion; `Judge.judge` says what the arguments are.

        Raises:
            InvalidRequest: If the column does not give one reward for each completion.
        """
        columns = columns_of(rows)
        found = self.column(prompts=prompts, completions=completions, **columns)
        rewards = _awaited(found) if inspect.isawaitable(found) else found
        if len(rewards) != len(completions):
            raise InvalidRequest(
                f"the column {brief(self.name)!r} gave {len(rewards)} rewards for "
                f"{len(completions)} completions; it must give one for each"
            )
        return [self._verdict(reward) for reward in rewards]

    def _verdict(self, reward: float | None) -> Verdict | None:
        if reward is None:
            return None
        try:
            is_finite = math.isfinite(reward)
        except OverflowError:
            # A whole number beyond all floats.
            is_finite = False
        if not is_finite:
            return -1
        is_low = self.at_least is not None and reward < self.at_least
        is_high = self.at_most is not None and reward > self.at_most
        return 0 if is_low or is_high else 1


def columns_of(rows: Sequence[Row] | None) -> dict[str, list[Any]]:
    """Return the columns that rows have, as reward functions take them; None where one has none."""
    names = dict.fromkeys(name for row in rows or () for name in row)
    return {
        name: [row.get(name) for row in rows or ()]
        for name in names
        if name not in ("prompt", "completion", "prompts", "completions")
    }


def _awaited(answer: Any) -> Any:
    """Return what an awaitable gives, whether or not a loop runs in this thread."""

    async def wait() -> Any:
        return await answer

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()
