"""Rewards for what policies generate, from the reward models of the same server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from steerward.engine.served import ServedModel
from steerward.policy.steering import Ranking, Reward
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import DeadlineExceeded
from steerward.protocol.scoring import ScoreRequest
from steerward.protocol.validation import invalid_request

_SHORTEST_S, _LONGEST_S = 0.001, 3600.0


class EngineRewards:
    """A reward model of this server, as policies use it: one item a prompt, in the same queue.

    Args:
        engine: That scores.
    """

    def __init__(self, engine: ServedModel) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """Under which it is served."""
        return self._engine.name

    @property
    def objectives(self) -> Sequence[str]:
        """Names that a direction may use."""
        return self._engine.model.objectives.names

    async def rank(
        self,
        messages: Sequence[Mapping[str, str]],
        completions: Sequence[str],
        *,
        direction: PreferenceDirection | None,
        deadline: float,
    ) -> Ranking:
        """Score completions of one prompt side by side; the prompt is computed once.

        Raises:
            DeadlineExceeded: If the deadline has passed.
            SteerwardError: Why there are no scores else.
        """
        left_s = deadline - time.perf_counter()
        if left_s < _SHORTEST_S:
            raise DeadlineExceeded(
                "the deadline passed before the completions were scored; allow more time "
                "(timeout_s), or ask for fewer or shorter completions"
            )
        request = _score_request(messages, completions, direction, min(left_s, _LONGEST_S))
        scored = await self._engine.score(request)
        answer = scored.answer
        return Ranking(
            rewards=[_reward(candidate) for candidate in answer["items"][0]["candidates"]],
            weight_version=answer["weight_version"],
            direction_scale=answer.get("direction_scale"),
        )


def _score_request(
    messages: Sequence[Mapping[str, str]],
    completions: Sequence[str],
    direction: PreferenceDirection | None,
    timeout_s: float,
) -> ScoreRequest:
    item = {"prompt": [dict(turn) for turn in messages], "candidates": list(completions)}
    body: dict[str, Any] = {"items": [item], "timeout_s": timeout_s}
    if direction is not None:
        body["direction"] = dict(direction.components)
    try:
        return ScoreRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error.errors()) from None


def _reward(candidate: Mapping[str, Any]) -> Reward:
    return Reward(
        score=candidate["score"],
        direction_score=candidate.get("direction_score"),
        rewards=candidate["rewards"],
    )
