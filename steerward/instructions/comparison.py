"""Counts against a limit: the relations that instructions use, and limits near a count."""

from __future__ import annotations

import math
import random

from steerward.instructions.kind import Wish

AT_LEAST = "at least"
LESS_THAN = "less than"
RELATIONS = (AT_LEAST, LESS_THAN)
"""The relations of the published kinds; `at least` takes the limit in, `less than` does not."""

_FARTHEST = 0.4
"""A drawn limit lies within this share of the count. Ours."""


def holds(count: int, relation: str, limit: int) -> bool:
    """Return whether a count keeps to a limit."""
    return count >= limit if relation == AT_LEAST else count < limit


def limit_near(count: int, relation: str, *, wish: Wish) -> int | None:
    """Return a limit of at least 1 near the count that it keeps to, or not; None without one."""
    if wish.met == (relation == AT_LEAST):
        least, most = max(1, math.ceil(count * (1 - _FARTHEST))), count
    else:
        least, most = count + 1, count + 1 + max(2, math.floor(count * _FARTHEST))
    return wish.order.randint(least, most) if least <= most else None


def limit_and_relation(count: int, wish: Wish) -> tuple[int, str] | None:
    """Return a limit near the count and a relation, as `limit_near`; None if neither has one."""
    for relation in wish.order.sample(RELATIONS, k=len(RELATIONS)):
        limit = limit_near(count, relation, wish=wish)
        if limit is not None:
            return limit, relation
    return None


def other_count(count: int, *, least: int, order: random.Random) -> int:
    """Return a count near this one, and not it."""
    spread = max(2, round(count * _FARTHEST))
    near = range(max(least, count - spread), count + spread + 1)
    return order.choice([number for number in near if number != count])


def times(number: int) -> str:
    """Return how often, in words."""
    return f"{number} time" if number == 1 else f"{number} times"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(items: list[str]) -> str:
    """Return texts in double quotes, with an "and" before the last."""
    quoted = [f'"{item}"' for item in items]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
