"""Preference directions and weights: numbers over named objectives that steer a score.

A direction is a unit vector with signs (DPA, arXiv:2402.18571, section 2); weights are
non-negative and take the place of the gates (MODPO, GRPO). Both are checked here, before they
meet a model; whether the names exist is the objective set's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from steerward.protocol.errors import InvalidDirection, brief


@dataclass(frozen=True, slots=True)
class PreferenceDirection:
    """A unit vector over named objectives."""

    components: Mapping[str, float]

    @classmethod
    def from_mapping(
        cls, components: Mapping[str, float], *, param: str = "direction"
    ) -> PreferenceDirection:
        """Return the direction of a mapping, brought to norm 1.

        Raises:
            InvalidDirection: If it is empty, zero, or holds NaN or infinity.
        """
        _refuse_non_finite(components, param=param)
        # hypot keeps tiny and huge components from under- and overflowing when squared.
        norm = math.hypot(*components.values())
        if norm == 0.0 or not math.isfinite(norm):
            raise InvalidDirection(
                f"a direction needs a finite, non-zero length; got length {norm}; "
                "give at least one objective a value such as 1.0",
                param=param,
            )
        return cls({name: value / norm for name, value in components.items()})

    @classmethod
    def from_angle(
        cls, angle_deg: float, first: str, second: str, *, param: str = "angle"
    ) -> PreferenceDirection:
        """Return the direction at an angle, in degrees, from one objective towards another.

        Raises:
            InvalidDirection: If the angle is not finite.
        """
        if not math.isfinite(angle_deg):
            raise InvalidDirection(
                f"the angle is {angle_deg}; give a finite number of degrees", param=param
            )
        angle = math.radians(angle_deg)
        return cls({first: math.cos(angle), second: math.sin(angle)})


def check_weights(weights: Mapping[str, float], *, param: str = "weights") -> dict[str, float]:
    """Return weights unchanged if they may take the place of the gates.

    Weights are used as given and never rescaled: the caller's scale is the caller's choice.

    Raises:
        InvalidDirection: If they are empty, all zero, negative, or hold NaN or infinity.
    """
    _refuse_non_finite(weights, param=param)
    for name, value in weights.items():
        if value < 0.0:
            raise InvalidDirection(
                f"weight of {brief(name)!r} is {value}; weights take the place of the gates and "
                "are at least 0; use `direction` for preferences with a sign",
                param=f"{param}.{brief(name)}",
            )
    if not any(weights.values()):
        raise InvalidDirection(
            "all weights are zero; give at least one objective a weight", param=param
        )
    return dict(weights)


def _refuse_non_finite(values: Mapping[str, float], *, param: str) -> None:
    if not values:
        raise InvalidDirection(
            f"{param} is empty; name at least one objective, as in {{'helpfulness': 1.0}}",
            param=param,
        )
    for name, value in values.items():
        if not math.isfinite(value):
            raise InvalidDirection(
                f"the value of {brief(name)!r} is {value}; give a finite number",
                param=f"{param}.{brief(name)}",
            )
