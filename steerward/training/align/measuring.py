"""What a policy's answers to held-out prompts are worth, before, while and after it is trained."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.responses import draw_responses
from steerward.training.align.rows import PromptRow

RewardFunction = Callable[..., Any]
"""Of TRL: called with prompts, completions and all columns; a number or None for each."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rewards of the answers to held-out prompts, in the prompts' order."""

    rewards: Mapping[str, list[float | None]]
    """By column."""
    characters: list[int]
    """Lengths of the answers."""

    def means(self) -> dict[str, float]:
        """Return the mean of each column over the prompts that have one."""
        found = {
            name: [v for v in values if v is not None] for name, values in self.rewards.items()
        }
        return {name: sum(values) / len(values) for name, values in found.items() if values}


class HeldOut:
    """Held-out prompts, answered with the same random numbers each time.

    Args:
        rows: The prompts.
        functions: Reward columns.
        tokenizer: Of the policy.
        max_tokens: Longest answer.
        temperature: Of sampling.
        top_p: Of sampling.
        seed: Of sampling.
    """

    def __init__(
        self,
        rows: Sequence[PromptRow],
        functions: Sequence[RewardFunction],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> None:
        self._rows = rows
        self._functions = functions
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._seed = seed

    def measure(self, model: Any) -> Measured:
        """Answer the prompts and score the answers; the training's random numbers stay.

        Raises:
            SteerwardError: Why there are no rewards.
        """
        prompts = [[dict(turn) for turn in row.messages] for row in self._rows]
        answers = draw_responses(
            model,
            self._tokenizer,
            prompts,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            top_p=self._top_p,
            seed=self._seed,
        )
        completions = [[{"role": "assistant", "content": answer}] for answer in answers]
        columns = columns_of(self._rows)
        rewards = {
            function.__name__: _checked(function, prompts, completions, columns)
            for function in self._functions
        }
        return Measured(rewards, [len(answer) for answer in answers])


def columns_of(rows: Sequence[PromptRow]) -> dict[str, list[Any]]:
    """Return the columns of rows by name; None where a row has none."""
    names = sorted({name for row in rows for name in row.columns})
    return {name: [row.columns.get(name) for row in rows] for name in names}


def called(function: RewardFunction, **given: Any) -> Sequence[Any]:
    """Return what a reward function gives, also one that is `async def`."""
    found = function(**given)
    return asyncio.run(_waited(found)) if inspect.isawaitable(found) else found


async def _waited(found: Awaitable[Any]) -> Any:
    return await found


def _checked(
    function: RewardFunction,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
) -> list[float | None]:
    values = called(function, prompts=prompts, completions=completions, **columns)
    if len(values) != len(prompts):
        raise InvalidRequest(
            f"the reward {function.__name__!r} gave {len(values)} numbers for {len(prompts)} "
            "completions; it must give one each, or None"
        )
    for value in values:
        if value is not None and not math.isfinite(value):
            raise InvalidRequest(
                f"the reward {function.__name__!r} gave {value}; give a number, or None where it "
                "does not apply"
            )
    return [None if value is None else float(value) for value in values]
