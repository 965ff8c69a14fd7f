"""Reward columns by the names that settings use, whoever computes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.measuring import RewardFunction

RewardSource = Callable[[Sequence[str]], Sequence[RewardFunction]]
"""Gives a function for each of some objectives, `score` among them, in their order."""

_LESS = "less_"


@dataclass(frozen=True, slots=True)
class Columns:
    """Functions that a trainer calls, and their weights, all above 0.

    An objective of which less is better is a column of its own, `less_<objective>`: its rewards
    have the other sign, so that in every column more is better, in the logs as in the loss.
    """

    functions: tuple[RewardFunction, ...]
    weights: Mapping[str, float]
    """By column; those that are only logged have none."""

    @property
    def names(self) -> list[str]:
        """Of all columns, in order."""
        return [function.__name__ for function in self.functions]


def build_columns(
    source: RewardSource, weights: Mapping[str, float], *, logged: Sequence[str] = ()
) -> Columns:
    """Return the columns of weighted and of logged objectives.

    Args:
        source: Of the rewards.
        weights: By objective; below 0: less of it is better.
        logged: Further objectives.

    Raises:
        SteerwardError: If the source does not have one.
    """
    objectives = [*weights, *logged]
    functions = source(objectives)
    if len(functions) != len(objectives):
        raise InvalidRequest(
            f"the source of rewards gave {len(functions)} functions for {len(objectives)} "
            f"objectives: {', '.join(objectives)}"
        )
    made = [
        named(function, column_name(objective, weights), sign=_sign(objective, weights))
        for objective, function in zip(objectives, functions, strict=True)
    ]
    positive = {column_name(name, weights): abs(weight) for name, weight in weights.items()}
    return Columns(tuple(made), positive)


def column_name(objective: str, weights: Mapping[str, float]) -> str:
    """Return the column of an objective, of which less may be better."""
    return objective if _sign(objective, weights) > 0 else f"{_LESS}{objective}"


def _sign(objective: str, weights: Mapping[str, float]) -> float:
    # Of a weight that a sweep has brought to 0, too: its column keeps its name.
    return math.copysign(1.0, weights.get(objective, 1.0))


def named(function: RewardFunction, name: str, *, sign: float = 1.0) -> RewardFunction:
    """Return a reward function under another name, with another sign where that is asked for."""
    if inspect.iscoroutinefunction(function):

        async def asynchronous(**given: Any) -> list[float | None]:
            return _signed(await function(**given), sign)

        asynchronous.__name__ = asynchronous.__qualname__ = name
        return asynchronous

    def column(**given: Any) -> list[float | None]:
        return _signed(function(**given), sign)

    column.__name__ = column.__qualname__ = name
    return column


def _signed(values: Sequence[float | None], sign: float) -> list[float | None]:
    return [None if value is None else sign * value for value in values]
