"""How a direction is told to a policy that was trained to read one: rules, as data.

DPA (arXiv:2402.18571) writes the direction into the system prompt as arithmetic over named
objectives, with integer weights. A rule says which objectives, on what scale, in which words,
and how far from its axis the policy was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, UnknownObjective, brief

# 45 degrees given as a vector of floats is 45 degrees.
_TOLERANCE_DEG = 1e-6


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A direction as the policy reads it."""

    rule: str
    """Name of the rule."""
    system: str
    """Text of the system turn."""
    weights: Mapping[str, int]
    """The direction as written: rounded, times the rule's scale."""
    warnings: tuple[str, ...] = ()
    """What the policy was not trained on."""


class ConditioningRule(BaseModel):
    """How one policy reads a preference direction."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the rule; answers tell it."""
    objectives: list[str] = Field(min_length=1)
    """Objectives that the policy was trained on, in the order of the text."""
    template: str
    """The system turn, with each objective's name in braces where its weight belongs."""
    scale: int = Field(default=100, ge=1)
    """Weights are the unit vector times this, rounded half to even."""
    axis: dict[str, float] | None = None
    """Middle of the cone that the policy was trained in. Default: the first objective."""
    cone_deg: float = Field(default=180.0, gt=0, le=180)
    """Directions further from the axis than this are refused, unless forced."""
    trained_deg: tuple[float, float] | None = None
    """For two objectives: angles from the first towards the second that training covered, if the
    cone is wider; outside there is a warning."""
    reward_names: dict[str, str] = {}
    """Objective -> its name at the reward model, where that differs."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        missing = [name for name in self.objectives if f"{{{name}}}" not in self.template]
        if missing:
            raise ValueError(
                f"the template has no {{{missing[0]}}}: it must hold each objective's name in "
                "braces, where its weight belongs"
            )
        named = {*(self.axis or {}), *self.reward_names}
        if unknown := named.difference(self.objectives):
            raise ValueError(f"{min(unknown)!r} is none of the objectives {self.objectives}")
        if self.trained_deg is not None and len(self.objectives) != 2:
            raise ValueError("trained_deg is an angle between two objectives; leave it out")
        return self

    def covers(self, direction: PreferenceDirection) -> bool:
        """Return whether the policy was trained on all objectives of a direction."""
        return all(self.own_name(name) is not None for name in direction.components)

    def own_name(self, name: str) -> str | None:
        """Return the rule's name of an objective, be it given so or as the reward model's."""
        if name in self.objectives:
            return name
        return next((own for own, other in self.reward_names.items() if other == name), None)

    def reward_direction(self, direction: PreferenceDirection) -> PreferenceDirection:
        """Return a direction in the reward model's names."""
        return PreferenceDirection(
            {self.reward_names.get(name, name): v for name, v in direction.components.items()}
        )

    def angle_deg(self, direction: PreferenceDirection) -> float:
        """Return the angle to the axis, in degrees; with a sign for two objectives.

        Positive is from the first towards the second.
        """
        own = self._own(direction)
        if len(self.objectives) == 2 and self.axis is None:
            first, second = (own.get(name, 0.0) for name in self.objectives)
            return math.degrees(math.atan2(second, first))
        axis = PreferenceDirection.from_mapping(self.axis or {self.objectives[0]: 1.0}).components
        cosine = sum(axis.get(name, 0.0) * value for name, value in own.items())
        return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))

    def allows(self, direction: PreferenceDirection) -> bool:
        """Return whether a direction lies inside the cone that the policy was trained in."""
        return abs(self.angle_deg(direction)) <= self.cone_deg + _TOLERANCE_DEG

    def at_angle(self, angle_deg: float, *, param: str = "angle") -> PreferenceDirection:
        """Return the direction at an angle from the first objective towards the second.

        Raises:
            InvalidDirection: If there are not two objectives, or it is not finite.
        """
        if len(self.objectives) != 2:
            raise InvalidDirection(
                f"an angle lies between two objectives; the rule {self.name!r} has "
                f"{len(self.objectives)}: give a direction by name",
                param=param,
            )
        return PreferenceDirection.from_angle(angle_deg, *self.objectives, param=param)

    def condition(self, direction: PreferenceDirection, *, force: bool = False) -> Conditioning:
        """Return a direction in the words that the policy was trained on.

        Args:
            direction: Of norm 1; objectives that it does not name weigh 0.
            force: Write it even outside the cone.

        Raises:
            UnknownObjective: If the policy was not trained on one of its objectives.
            InvalidDirection: If it lies outside the cone.
        """
        own = self._own(direction)
        angle = self.angle_deg(direction)
        if not self.allows(direction) and not force:
            raise InvalidDirection(
                f"the direction is {abs(angle):.1f} degrees from the axis of the rule "
                f"{self.name!r}, limit {self.cone_deg:g}: the policy was not trained there; turn "
                "it back, set force to try, or steer by selection (steering: best_of)",
                param="direction",
            )
        weights = {name: round(self.scale * own.get(name, 0.0)) for name in self.objectives}
        text = self.template
        for name, weight in weights.items():
            text = text.replace(f"{{{name}}}", str(weight))
        return Conditioning(self.name, text, weights, self._warnings(angle))

    def _own(self, direction: PreferenceDirection) -> dict[str, float]:
        own: dict[str, float] = {}
        for name, value in direction.components.items():
            known = self.own_name(name)
            if known is None:
                raise UnknownObjective(
                    f"the policy was not trained on {brief(name)!r}, only on "
                    f"{', '.join(self.objectives)}; name one of these, or steer by selection "
                    "(steering: best_of)",
                    param=f"direction.{brief(name)}",
                )
            own[known] = own.get(known, 0.0) + value
        return own

    def _warnings(self, angle_deg: float) -> tuple[str, ...]:
        if abs(angle_deg) > self.cone_deg + _TOLERANCE_DEG:
            return (f"{angle_deg:.1f} degrees is outside the trained cone of {self.cone_deg:g}",)
        if self.trained_deg is None:
            return ()
        low, high = self.trained_deg
        if low - _TOLERANCE_DEG <= angle_deg <= high + _TOLERANCE_DEG:
            return ()
        return (
            f"{angle_deg:.1f} degrees is outside of what training is known to have covered, "
            f"{low:g} to {high:g}",
        )


def conditioned_turns(
    turns: Sequence[Mapping[str, str]], system: str
) -> tuple[Mapping[str, str], ...]:
    """Return turns with a text as their system turn, in front of the one that they have."""
    if turns and turns[0]["role"] == "system":
        own = turns[0]["content"]
        system = f"{system}\n\n{own}" if own.strip() else system
        turns = turns[1:]
    return ({"role": "system", "content": system}, *turns)


DPA_V1 = ConditioningRule(
    name="dpa-v1",
    objectives=["helpfulness", "verbosity"],
    template=(
        "You are a helpful, respectful, and honest assistant who always responds to the user in a "
        "harmless way. Your response should maximize weighted rating = helpfulness*{helpfulness} "
        "+ verbosity*{verbosity}"
    ),
    cone_deg=45.0,
    trained_deg=(-45.0, 0.0),
    reward_names={
        "helpfulness": "helpsteer-helpfulness",
        "verbosity": "helpsteer-verbosity",
    },
)
"""RLHFlow/DPA-v1-Mistral-7B, as its repository documents it."""

RULES: Mapping[str, ConditioningRule] = {DPA_V1.name: DPA_V1}
"""Rules by name."""
