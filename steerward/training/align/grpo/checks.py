"""What is refused before or while rewards are trained on, so that no number is silently wrong.

Axis legend: N samples, K objectives.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from steerward.protocol.errors import (
    InvalidDirection,
    InvalidRequest,
    NonFiniteScore,
    TrainingFailed,
    UnknownObjective,
    brief,
)
from steerward.training.align.grpo.groups import group_moments

ValueT = TypeVar("ValueT")

MAX_MISSING = 0.5
"""Largest share of a batch to which a column may not apply; ours."""
MAX_CONSTANT_STEPS = 20
"""Most generations on end from which nothing may be learned; ours."""


def check_names(names: Sequence[str]) -> None:
    """Refuse columns without a name of their own.

    Raises:
        InvalidRequest: If there are none, or two have one name.
    """
    if not names:
        raise InvalidRequest("there are no reward columns; give at least one", param="reward_funcs")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidRequest(
            f"two reward columns have the name {brief(twice[0])!r}, and weights and logs go by "
            "name; give each function a __name__ of its own",
            param="reward_funcs",
        )


def by_name(
    values: Mapping[str, ValueT], names: Sequence[str], *, param: str
) -> tuple[ValueT, ...]:
    """Return what is given by name, in the order of the columns.

    Args:
        values: One for each column.
        names: Of the columns, in order.
        param: What it is, for the error.

    Raises:
        UnknownObjective: If a name is no column.
        InvalidRequest: If a column has no value.
    """
    check_known(values, names, param=param)
    missing = [name for name in names if name not in values]
    if missing:
        raise InvalidRequest(
            f"{param} leaves out {', '.join(map(brief, missing))}; name every column, with 0 for "
            "one that is only logged",
            param=param,
        )
    return tuple(values[name] for name in names)


def check_known(given: Collection[str], names: Sequence[str], *, param: str) -> None:
    """Refuse names that are no columns.

    Raises:
        UnknownObjective: If there is one.
    """
    unknown = [name for name in given if name not in names]
    if unknown:
        raise UnknownObjective(
            f"{param} names {', '.join(map(brief, unknown))}; the columns are "
            f"{', '.join(map(brief, names))}",
            param=param,
        )


def ordered_weights(weights: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """Return weights in the order of the columns.

    Raises:
        UnknownObjective: If a name is no column.
        InvalidRequest: If a column has no weight.
        InvalidDirection: If a weight is not finite, or all are 0.
    """
    found = by_name(weights, names, param="weights")
    wrong = [name for name, value in zip(names, found, strict=True) if not math.isfinite(value)]
    if wrong:
        raise InvalidDirection(
            f"the weight of {brief(wrong[0])!r} is {weights[wrong[0]]}; give a finite number",
            param="weights",
        )
    if not any(found):
        raise InvalidDirection(
            "all weights are 0, so that nothing would be learned; give one that is not",
            param="weights",
        )
    return tuple(map(float, found))


def check_rewards(
    rewards_NK: Tensor,
    *,
    names: Sequence[str],
    max_missing: float | Mapping[str, float] = MAX_MISSING,
) -> None:
    """Refuse rewards that are infinite, or missing more often than allowed.

    Args:
        rewards_NK: Raw; NaN where a column does not apply, which is also what a function that
            fails quietly gives.
        names: Of the columns.
        max_missing: Largest share of samples without a value: of any column, or by name, with
            `MAX_MISSING` for columns that it leaves out.

    Raises:
        NonFiniteScore: If a reward is infinite.
        TrainingFailed: If a column is missing too often.
        UnknownObjective: If `max_missing` names a column that is not there.
    """
    if not isinstance(max_missing, float | int):
        check_known(max_missing, names, param="max_missing")
    for k, name in enumerate(names):
        if bool(rewards_NK[:, k].isinf().any()):
            raise NonFiniteScore(f"the reward {brief(name)!r} is infinite; see to its function")
        share = float(rewards_NK[:, k].isnan().float().mean())
        limit = (
            max_missing
            if isinstance(max_missing, float | int)
            else max_missing.get(name, MAX_MISSING)
        )
        if share > limit:
            raise TrainingFailed(
                f"the reward {brief(name)!r} has no value for {share:.0%} of {len(rewards_NK)} "
                f"samples, limit {limit:.0%}; see to its function, or raise max_missing for "
                "it if it is of some tasks only"
            )


def constant_columns(
    rewards_NK: Tensor, *, group_size: int, names: Sequence[str]
) -> frozenset[str]:
    """Return the columns with values that are equal within every group."""
    is_constant_K = group_moments(rewards_NK, group_size=group_size).is_constant_NK.all(dim=0)
    is_there_K = (~rewards_NK.isnan()).any(dim=0)
    found = (is_constant_K & is_there_K).tolist()
    return frozenset(name for name, constant in zip(names, found, strict=True) if constant)


def constant_steps(before: Mapping[str, int], constant: Collection[str]) -> dict[str, int]:
    """Return for how many steps on end each column has been constant, with one step more."""
    return {name: before.get(name, 0) + 1 for name in sorted(constant)}


def newly_constant(steps: Mapping[str, int], *, limit: int) -> list[str]:
    """Return the columns that reach the limit with this step, for one warning each."""
    return [name for name, count in steps.items() if count == limit]


def check_idle_steps(steps: int, *, limit: int, constant: Collection[str]) -> None:
    """Refuse to go on where nothing has been learned for too long.

    Args:
        steps: On end, in which no sample had an advantage other than 0.
        limit: Most that are allowed.
        constant: Columns that are equal within every group now.

    Raises:
        TrainingFailed: If there are more than that.
    """
    if steps > limit:
        told = ", ".join(map(brief, sorted(constant))) or "none"
        raise TrainingFailed(
            f"no sample had an advantage other than 0 for {steps} steps on end, limit {limit}, so "
            f"that nothing was learned; columns that are equal within every group: {told}. See to "
            "their functions or give them weight 0, raise num_generations or the temperature, "
            "choose an aggregation that asks less of all objectives, or raise max_constant_steps"
        )
