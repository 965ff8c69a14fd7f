"""From a request for completions to what the policy is asked, and from what it did to the answer.

Names of directions and angles become numbers here; what they then mean is the policy's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steerward.config import ServeConfig
from steerward.policy.generation import Prompt, Sampling
from steerward.policy.steering import (
    Ranking,
    Reward,
    SteeredGeneration,
    SteeringReport,
    SteeringRequest,
)
from steerward.protocol.chat import ChatCompletionRequest
from steerward.protocol.completions import CompletionRequest
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest, brief
from steerward.protocol.sampling import SampledRequest

AnyRequest = ChatCompletionRequest | CompletionRequest


def steering_request(
    body: AnyRequest,
    *,
    config: ServeConfig,
    rule: ConditioningRule | None,
    variant: str | None,
    began_at: float,
) -> SteeringRequest:
    """Return what a policy is asked.

    Args:
        body: Of the request.
        config: Limits and named directions.
        rule: How the policy reads a direction, if it does.
        variant: Of the policy.
        began_at: `time.perf_counter()` of the request.

    Raises:
        InvalidDirection: If the direction has no such name, or is zero or not finite.
        InvalidRequest: If the completions may not be so long.
    """
    timeout_s = min(body.timeout_s or math.inf, config.generation_timeout_s)
    return SteeringRequest(
        prompt=_prompt(body),
        sampling=_sampling(body, longest=config.max_completion_tokens),
        deadline=began_at + timeout_s,
        n=body.num_choices,
        best_of=body.best_of,
        steering=body.steering,
        direction=wanted_direction(body, config.profiles, rule),
        force=body.force,
        num_neighbours=body.num_neighbours,
        neighbour_deg=body.neighbour_angle,
        variant=variant,
        with_rewards=body.reward,
    )


def _prompt(body: AnyRequest) -> Prompt:
    if isinstance(body, ChatCompletionRequest):
        if body.is_answered:
            raise InvalidRequest(
                "the last turn has the role assistant; a completion answers a user or tool turn, "
                "and only a reward model, named as `model`, takes an answer",
                param="messages",
            )
        return Prompt(messages=body.turns)
    return Prompt(text=body.prompt)


def _sampling(body: AnyRequest, *, longest: int | None) -> Sampling:
    asked = body.longest
    if asked is not None and longest is not None and asked > longest:
        param = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        raise InvalidRequest(
            f"{param} is {asked:,}, limit {longest:,}; ask for fewer, or start the server with "
            f"--max-completion-tokens {asked}",
            param=param,
        )
    return Sampling(
        max_tokens=asked,
        default_max_tokens=longest,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=tuple(body.stop or ()),
        seed=body.seed,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        top_logprobs=body.num_top_logprobs,
    )


def wanted_direction(
    body: SampledRequest,
    profiles: Mapping[str, Mapping[str, float]],
    rule: ConditioningRule | None,
) -> PreferenceDirection | None:
    """Return the direction of a request, if it has one.

    Raises:
        InvalidDirection: If it has no such name, is zero or not finite, or is an angle without a
            rule.
    """
    if body.angle is not None:
        if rule is None:
            raise InvalidDirection(
                "the policy has no rule that tells between which objectives an angle lies; give a "
                "direction by name",
                param="angle",
            )
        return rule.at_angle(body.angle)
    given = body.direction
    if given is None:
        return None
    if isinstance(given, str):
        if given not in profiles:
            known = ", ".join(profiles) or "none; start the server with --profiles"
            raise InvalidDirection(
                f"there is no direction {brief(given)!r} here; known: {known}", param="direction"
            )
        given = profiles[given]
    return PreferenceDirection.from_mapping(given)


def steering_used(report: SteeringReport, ranking: Ranking | None) -> dict[str, Any]:
    """Return what the answer says of steering; without a ranking, what is known before it."""
    return {
        "mode": report.mode,
        "mechanisms": list(report.mechanisms),
        "direction": None if report.direction is None else dict(report.direction),
        "rule": report.rule,
        "system": report.system,
        "samples": report.samples,
        "reward_model": report.reward_model,
        "reward_weight_version": None if ranking is None else ranking.weight_version,
        "direction_scale": None if ranking is None else ranking.direction_scale,
        "warnings": list(report.warnings),
    }


def choice_reward(reward: Reward | None) -> dict[str, Any] | None:
    """Return what the answer says of the reward of one completion."""
    if reward is None:
        return None
    return {
        "score": reward.score,
        "direction_score": reward.direction_score,
        "rewards": dict(reward.rewards),
    }


def usage(generation: SteeredGeneration) -> dict[str, Any]:
    """Return the tokens of a request that has ended."""
    prompt_tokens, completion_tokens = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        # Policies keep nothing from one request to the next.
        "prompt_tokens_details": {"cached_tokens": 0},
    }
