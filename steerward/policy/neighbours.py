"""Directions around a target: where preference conditioning is asked for more than one answer.

RPS (arXiv:2510.20498) draws one completion for each of a few directions near the target, inside
what the policy was trained on, and lets the reward model choose by the target. Between two
objectives the neighbours are evenly spaced angles; between more they are drawn on the sphere.
Pure: no policy and no reward model is asked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest

_TOLERANCE_DEG = 1e-6
# Draws before the cap is taken for too large to meet the cone by chance.
_MOST_DRAWS = 500
# Half of half ... of any cap: below this all directions are the target.
_LEAST_DEG = 0.01


def neighbours_of(
    target: PreferenceDirection,
    rule: ConditioningRule,
    *,
    count: int,
    within_deg: float,
    force: bool = False,
    seed: int | None = None,
) -> list[PreferenceDirection]:
    """Return directions near a target, in the rule's names.

    Args:
        target: All its objectives are the rule's.
        rule: Its cone bounds the neighbours.
        count: How many.
        within_deg: Largest angle to the target.
        force: Leave the cone out of account.
        seed: Of the draws between more than two objectives.

    Raises:
        InvalidDirection: If no part of the cone is near enough.
        InvalidRequest: If the rule has one objective only.
    """
    if len(rule.objectives) == 1:
        raise InvalidRequest(
            f"the rule {rule.name!r} has one objective, which leaves no directions between; steer "
            "by selection (steering: best_of)",
            param="steering",
        )
    cone_deg = 180.0 if force else rule.cone_deg
    if len(rule.objectives) == 2:
        return _in_plane(target, rule, count=count, within_deg=within_deg, cone_deg=cone_deg)
    return _on_sphere(
        target, rule, count=count, within_deg=within_deg, cone_deg=cone_deg, rng=random.Random(seed)
    )


def spread(target: float, low: float, high: float, count: int) -> list[float]:
    """Return values from low to high, ascending and evenly spaced as far as can be.

    An odd count has the target among them, if it lies between; the others are shared out to
    both sides by their lengths.
    """
    if count == 1:
        return [min(max(target, low), high)]
    if count % 2 == 0 or not low <= target <= high:
        return [low + (high - low) * i / (count - 1) for i in range(count)]
    left, right = target - low, high - target
    num_left = round((count - 1) * left / (left + right)) if left + right > 0 else 0
    num_right = count - 1 - num_left
    return [
        *(target - left * i / num_left for i in range(num_left, 0, -1)),
        target,
        *(target + right * i / num_right for i in range(1, num_right + 1)),
    ]


def _in_plane(
    target: PreferenceDirection,
    rule: ConditioningRule,
    *,
    count: int,
    within_deg: float,
    cone_deg: float,
) -> list[PreferenceDirection]:
    axis_deg = _plane_angle(_unit(rule.axis or {rule.objectives[0]: 1.0}, rule))
    own_deg = _plane_angle(_unit(target.components, rule))
    # From the axis, in (-180, 180]: the cone is then an interval around 0.
    angle = (own_deg - axis_deg + 180.0) % 360.0 - 180.0
    low, high = angle - within_deg, angle + within_deg
    if cone_deg < 180.0:
        low, high = max(low, -cone_deg), min(high, cone_deg)
    if low > high + _TOLERANCE_DEG:
        raise _too_far(rule, angle, within_deg)
    return [rule.at_angle(axis_deg + at) for at in spread(angle, low, max(low, high), count)]


def _on_sphere(
    target: PreferenceDirection,
    rule: ConditioningRule,
    *,
    count: int,
    within_deg: float,
    cone_deg: float,
    rng: random.Random,
) -> list[PreferenceDirection]:
    centre = _unit(target.components, rule)
    axis = _unit(rule.axis or {rule.objectives[0]: 1.0}, rule)
    is_inside = _angle(centre, axis) <= cone_deg + _TOLERANCE_DEG
    found = [centre] if is_inside else []
    radius = within_deg
    while len(found) < count:
        drawn = _draw_in_both(centre, radius, axis, cone_deg, rng=rng)
        if drawn is not None:
            found.append(drawn)
        elif is_inside and radius > _LEAST_DEG:
            # Between many objectives nearly all of a cap is at its rim, outside a narrow cone.
            radius /= 2
        elif is_inside:
            found.append(centre)
        else:
            raise _too_far(rule, _angle(centre, axis), within_deg)
    return [_direction(point, rule) for point in found]


def _draw_in_both(
    first: Sequence[float],
    first_deg: float,
    second: Sequence[float],
    second_deg: float,
    *,
    rng: random.Random,
) -> list[float] | None:
    """Return a uniform draw from where two caps meet; None if chance does not find it."""
    if second_deg < first_deg:
        first, first_deg, second, second_deg = second, second_deg, first, first_deg
    for _ in range(_MOST_DRAWS):
        point = draw_on_cap(first, first_deg, rng=rng)
        if _angle(point, second) <= second_deg + _TOLERANCE_DEG:
            return point
    return None


def draw_on_cap(centre: Sequence[float], radius_deg: float, *, rng: random.Random) -> list[float]:
    """Return a uniform draw from the unit vectors within an angle of a unit vector."""
    radius = math.radians(radius_deg)
    # A circle of latitude has a content that grows with the sine, once for each further dimension.
    power = len(centre) - 2
    most = 1.0 if radius > math.pi / 2 else math.sin(radius)
    polar = radius * rng.random()
    while rng.random() > (math.sin(polar) / most) ** power:
        polar = radius * rng.random()
    normal = [rng.gauss(0.0, 1.0) for _ in centre]
    along = sum(a * b for a, b in zip(normal, centre, strict=True))
    tangent = [a - along * b for a, b in zip(normal, centre, strict=True)]
    length = math.hypot(*tangent)
    return [
        math.cos(polar) * c + math.sin(polar) * t / length
        for c, t in zip(centre, tangent, strict=True)
    ]


def _unit(components: Mapping[str, float], rule: ConditioningRule) -> list[float]:
    """Return a vector over the rule's objectives, of norm 1."""
    values = dict.fromkeys(rule.objectives, 0.0)
    for name, value in components.items():
        own = rule.own_name(name)
        assert own is not None, "whoever asks for neighbours has asked the rule for the target"
        values[own] += value
    norm = math.hypot(*values.values())
    return [value / norm for value in values.values()]


def _angle(first: Sequence[float], second: Sequence[float]) -> float:
    cosine = sum(a * b for a, b in zip(first, second, strict=True))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _plane_angle(point: Sequence[float]) -> float:
    first, second = point
    return math.degrees(math.atan2(second, first))


def _direction(point: Sequence[float], rule: ConditioningRule) -> PreferenceDirection:
    return PreferenceDirection.from_mapping(dict(zip(rule.objectives, point, strict=True)))


def _too_far(rule: ConditioningRule, angle_deg: float, within_deg: float) -> InvalidDirection:
    return InvalidDirection(
        f"the direction is {abs(angle_deg):.1f} degrees from the axis of the rule {rule.name!r}, "
        f"whose cone ends at {rule.cone_deg:g}, and neighbours are at most {within_deg:g} away: "
        "turn it back, set force to try, or steer by selection (steering: best_of)",
        param="direction",
    )
