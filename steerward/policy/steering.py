"""Three ways to steer with one direction: conditioning, selection, and both over neighbours."""

from __future__ import annotations

from steerward.policy.case import RewardModelNames
from steerward.policy.delivery import Selected, Streamed
from steerward.policy.generation import GenerationRequest, Policy
from steerward.policy.plan import MAX_SAMPLES, make_plan
from steerward.policy.steering_types import (
    Part,
    Ranking,
    Reward,
    RewardSource,
    SteeredGeneration,
    SteeringReport,
    SteeringRequest,
)

__all__ = [
    "MAX_SAMPLES",
    "Part",
    "Ranking",
    "Reward",
    "RewardSource",
    "SteeredGeneration",
    "SteeredPolicy",
    "SteeringReport",
    "SteeringRequest",
]


class SteeredPolicy:
    """A policy with the reward model that ranks its completions, if there is one.

    Args:
        policy: Draws the completions.
        reward_source: Scores them.
    """

    def __init__(self, policy: Policy, reward_source: RewardSource | None) -> None:
        self.policy = policy
        self.reward_source = reward_source

    async def begin(self, request: SteeringRequest) -> SteeredGeneration:
        """Check, plan and start a request.

        Raises:
            SteerwardError: All that can be known before the first token: of the plan
                (`InvalidRequest`, `UnknownObjective`, `InvalidDirection`), and of the policy.
        """
        source = self.reward_source
        plan = make_plan(
            request,
            policy=self.policy.name,
            rule=self.policy.rule,
            reward_model=_names_of(source),
        )
        generation = await self.policy.begin(
            GenerationRequest(plan.prompts, request.sampling, request.deadline, request.variant)
        )
        delivery = Selected if plan.selects else Streamed
        return delivery(generation, plan, source, deadline=request.deadline)


def _names_of(source: RewardSource | None) -> RewardModelNames | None:
    return None if source is None else RewardModelNames(source.name, tuple(source.objectives))
