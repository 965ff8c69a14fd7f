"""A steering request beside what there is to serve it: a rule, a reward model, their names.

Says what can be done and refuses what cannot, with the way out; `plan` decides what is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from steerward.policy.generation import Prompt
from steerward.policy.steering_types import SteeringRequest
from steerward.protocol.conditioning import (
    Conditioning,
    ConditioningRule,
    conditioned_turns,
)
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest, UnknownObjective, brief
from steerward.protocol.items import TextItem
from steerward.protocol.validation import invalid_request

Turns = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class RewardModelNames:
    """A reward model, as far as a plan needs it."""

    name: str
    objectives: Sequence[str]


@dataclass(frozen=True, slots=True)
class Case:
    """A request with what there is to serve it."""

    request: SteeringRequest
    policy: str
    """Its name."""
    rule: ConditioningRule | None
    """How the policy reads a direction, if it does."""
    reward_model: RewardModelNames | None
    """What ranks the completions, if anything does."""

    @property
    def can_condition(self) -> bool:
        """Whether the policy was trained on what the direction names, and can be told it."""
        direction, rule = self.request.direction, self.rule
        if direction is None or rule is None or self.request.prompt.text is not None:
            return False
        return rule.covers(direction)

    def check_direction(self) -> None:
        """Refuse a direction that names one of the policy's objectives twice."""
        direction, rule = self.request.direction, self.rule
        if direction is not None and rule is not None:
            _refuse_doubles({name: rule.own_name(name) for name in direction.components})

    def needed_rule(self) -> ConditioningRule:
        """Return the rule, where completions must be conditioned.

        Raises:
            InvalidRequest: If the policy has none, or the prompt no place for a direction.
        """
        if self.request.prompt.text is not None:
            raise InvalidRequest(
                "a raw text prompt has no system turn to write a direction into; send messages to "
                "/v1/chat/completions, or steer by selection (steering: best_of)",
                param="steering",
            )
        if self.rule is None:
            raise InvalidRequest(
                f"the policy {self.policy!r} was not trained to read a direction; steer by "
                "selection (steering: best_of), or serve it with the rule that it was trained with",
                param="steering",
            )
        return self.rule

    def conditioning_if_any(self) -> tuple[Conditioning | None, str | None]:
        """Return how completions are conditioned; if they cannot be, None and the reason."""
        direction, rule = self.request.direction, self.rule
        if direction is None:
            return None, None
        if self.request.prompt.text is not None:
            return None, "a raw text prompt has no system turn"
        if rule is None:
            return None, f"the policy {self.policy!r} was not trained to read a direction"
        try:
            return rule.condition(direction, force=self.request.force), None
        except UnknownObjective:
            trained = ", ".join(rule.objectives)
            return None, f"the policy was trained on no other objectives than {trained}"
        except InvalidDirection:
            return None, (
                f"the direction is {abs(rule.angle_deg(direction)):.1f} degrees from the axis of "
                f"the rule {rule.name!r}, limit {rule.cone_deg:g}"
            )

    def needed_reward_model(self) -> RewardModelNames:
        """Return the reward model, where completions are chosen.

        Raises:
            InvalidRequest: If there is none.
        """
        if self.reward_model is None:
            raise InvalidRequest(
                f"steering by selection needs a reward model, and none ranks the completions of "
                f"{self.policy!r}; serve one beside it, or leave best_of and "
                + ("steering out" if self.can_condition else "direction out"),
                param="steering" if self.request.best_of is None else "best_of",
            )
        return self.reward_model

    def reward_direction(self) -> PreferenceDirection | None:
        """Return the direction in the reward model's names.

        Raises:
            UnknownObjective: If it has no such objective.
        """
        direction = self.request.direction
        if direction is None or self.reward_model is None:
            return None
        names = {name: self._reward_name(name, self.reward_model) for name in direction.components}
        _refuse_doubles(names)
        return PreferenceDirection({names[name]: v for name, v in direction.components.items()})

    def _reward_name(self, name: str, reward_model: RewardModelNames) -> str:
        alias = self.rule.reward_names.get(name) if self.rule is not None else None
        for known in (name, alias):
            if known is not None and known in reward_model.objectives:
                return known
        raise UnknownObjective(
            f"the reward model {reward_model.name!r} has no objective {brief(name)!r}; it has "
            f"{', '.join(reward_model.objectives)}",
            param=f"direction.{brief(name)}",
        )

    def conversation(self, *, way_out: str) -> Turns:
        """Return what the reward model reads: the turns as they came, without any conditioning.

        Raises:
            InvalidRequest: If no reward model could judge an answer to them, which would come
                out behind the last token only.
        """
        prompt = self.request.prompt
        turns = prompt.messages
        if prompt.text is not None:
            turns = ({"role": "user", "content": prompt.text},)
        try:
            TextItem.model_validate({"prompt": [dict(turn) for turn in turns], "candidates": [""]})
        except ValidationError as error:
            reason = invalid_request(error.errors()).message
            raise InvalidRequest(
                f"the reward model cannot judge answers to this: {reason}; {way_out}",
                param="messages" if prompt.text is None else "prompt",
            ) from None
        return turns


def conditioned(prompt: Prompt, system: str) -> Prompt:
    """Return messages with a text as their system turn, in front of the one that they have."""
    return Prompt(messages=conditioned_turns(prompt.messages, system))


def _refuse_doubles(names: Mapping[str, str | None]) -> None:
    """Refuse names, each with what it stands for, of which two stand for the same."""
    counts = Counter(known for known in names.values() if known is not None)
    for known, count in counts.items():
        if count > 1:
            same = [brief(name) for name, stands_for in names.items() if stands_for == known]
            raise InvalidDirection(
                f"{' and '.join(same)} are names of one objective; give it once",
                param=f"direction.{same[-1]}",
            )
