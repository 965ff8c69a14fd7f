"""Which preference directions an iteration trains on, and which measure it.

All are in the names of the policy's rule and inside the cone that it was trained in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from steerward.jobs.rsf.draw import bits, uniforms
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest, UnknownObjective, brief
from steerward.protocol.rsf import RsfSettings

# Random directions that are tried, about a second's work, before the cone counts as out of reach.
_MOST_TRIES = 20_000


def directions_for(
    settings: RsfSettings, rule: ConditioningRule, *, iteration: int, seed: int
) -> list[PreferenceDirection]:
    """Return the directions of an iteration.

    Args:
        settings: List them, or say how many and how to make them.
        rule: The policy's.
        iteration: From 1; makes new ones of `arc` and `dirichlet`.
        seed: The job's.

    Raises:
        UnknownObjective: If the policy was not trained on one that is listed.
        InvalidDirection: If one lies outside the cone, or none is found inside.
        InvalidRequest: If the settings do not fit the policy's rule.
    """
    cone_deg = _cone_deg(settings, rule)
    if not isinstance(settings.directions, int):
        return [_listed(one, rule, place) for place, one in enumerate(settings.directions)]
    num = settings.directions
    if settings.spread == "dirichlet":
        return _dirichlet(rule, num, cone_deg, "directions", seed, iteration)
    if len(rule.objectives) != 2:
        raise InvalidRequest(
            f"spread {settings.spread!r} turns from one objective towards another; the policy "
            f"reads {len(rule.objectives)}: {', '.join(rule.objectives)}; set spread to "
            "dirichlet, or list the directions",
            param="method.rsf.spread",
        )
    if settings.spread == "grid":
        return _grid(rule, num, cone_deg)
    numbers = uniforms(bits("directions", seed, iteration), num)
    return [_turned(rule, cone_deg * (2.0 * number - 1.0)) for number in numbers.tolist()]


def evaluation_directions(
    settings: RsfSettings, rule: ConditioningRule, seed: int
) -> list[PreferenceDirection]:
    """Return the directions that all iterations are measured in.

    Raises:
        InvalidDirection: If none is found inside the cone.
        InvalidRequest: If the settings do not fit the policy's rule.
    """
    num, cone_deg = settings.evaluation_directions, _cone_deg(settings, rule)
    if len(rule.objectives) == 2:
        return _grid(rule, num, cone_deg)
    if len(rule.objectives) == 1:
        num = 1
    return _dirichlet(rule, num, cone_deg, "evaluation directions", seed)


def _cone_deg(settings: RsfSettings, rule: ConditioningRule) -> float:
    wanted = settings.cone_deg
    if wanted is None:
        return rule.cone_deg
    if wanted > rule.cone_deg:
        raise InvalidRequest(
            f"cone_deg is {wanted:g}, limit {rule.cone_deg:g}: the policy was not trained to read "
            f"directions further from the axis of the rule {rule.name!r}; lower it or leave it out",
            param="method.rsf.cone_deg",
        )
    return wanted


def _listed(
    components: Mapping[str, float], rule: ConditioningRule, place: int
) -> PreferenceDirection:
    param = f"method.rsf.directions[{place}]"
    direction = PreferenceDirection.from_mapping(components, param=param)
    own: dict[str, float] = {}
    for name, value in direction.components.items():
        known = rule.own_name(name)
        if known is None:
            raise UnknownObjective(
                f"the policy was not trained on {brief(name)!r}; name one of "
                f"{', '.join(rule.objectives)}",
                param=f"{param}.{brief(name)}",
            )
        if known in own:
            raise InvalidDirection(
                f"{brief(name)!r} is another name of {known!r}, which the direction holds already; "
                "give it once",
                param=f"{param}.{brief(name)}",
            )
        own[known] = value
    direction = PreferenceDirection(own)
    if not rule.allows(direction):
        raise InvalidDirection(
            f"the direction is {abs(rule.angle_deg(direction)):.1f} degrees from the axis of the "
            f"rule {rule.name!r}, limit {rule.cone_deg:g}: the policy was not trained there; turn "
            "it back",
            param=param,
        )
    return direction


def _grid(rule: ConditioningRule, num: int, cone_deg: float) -> list[PreferenceDirection]:
    if num == 1:
        return [_turned(rule, 0.0)]
    if cone_deg == 180.0:
        # A whole turn: both ends are one direction.
        angles = np.linspace(-cone_deg, cone_deg, num + 1)[1:]
    else:
        angles = np.linspace(-cone_deg, cone_deg, num)
    return [_turned(rule, angle) for angle in angles.tolist()]


def _turned(rule: ConditioningRule, angle_deg: float) -> PreferenceDirection:
    """Return the axis of two objectives turned from the first towards the second."""
    axis = rule.axis or {rule.objectives[0]: 1.0}
    first, second = (axis.get(name, 0.0) for name in rule.objectives)
    return rule.at_angle(math.degrees(math.atan2(second, first)) + angle_deg)


def _dirichlet(
    rule: ConditioningRule, num: int, cone_deg: float, *key: object
) -> list[PreferenceDirection]:
    """Return the first of a stream of random directions that lie inside the cone."""
    cone = rule.model_copy(update={"cone_deg": cone_deg})
    found: list[PreferenceDirection] = []
    for direction in _weights(rule, _MOST_TRIES, *key):
        if cone.allows(direction):
            found.append(direction)
            if len(found) == num:
                return found
    raise InvalidDirection(
        f"of {_MOST_TRIES:,} random directions of non-negative weights, {len(found)} lie "
        f"within {cone_deg:g} degrees of the axis of the rule {rule.name!r}, and {num} are needed; "
        "widen cone_deg if the rule allows it, or list the directions",
        param="method.rsf.spread",
    )


def _weights(rule: ConditioningRule, most: int, *key: object) -> Iterator[PreferenceDirection]:
    """Yield directions whose weights are even over the simplex: exponential, then brought to 1."""
    stream = bits(*key)
    for _ in range(most):
        weights = -np.log1p(-uniforms(stream, len(rule.objectives)))
        yield PreferenceDirection.from_mapping(
            dict(zip(rule.objectives, weights.tolist(), strict=True))
        )
