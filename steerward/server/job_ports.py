"""A policy and a reward model of this server, as fine-tuning jobs ask them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from steerward.engine.served import ServedModel
from steerward.jobs.rsf.ports import Completion, Generated, Sampling, Scored, Turns
from steerward.jobs.threads import in_thread
from steerward.policy.case import conditioned
from steerward.policy.generation import FinishReason, GenerationRequest, Policy, Prompt
from steerward.policy.generation import Sampling as PolicySampling
from steerward.policy.places import Places
from steerward.policy.trainable import TrainablePolicy
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import EngineFailure
from steerward.server.rewards import EngineRewards

_CALL_S = 3600.0


class ServedPolicy:
    """A policy of this server: the base at first, and what was published since.

    The policy serves first come, first served. So that live requests find places soon, a job has
    at most half of them, or those of one prompt if that is more; what it draws beyond waits here.

    Args:
        policy: That jobs fine-tune.
        name: Under which new weights are served beside it.
        start: The variant that the job begins with; None: the policy itself.
    """

    def __init__(self, policy: TrainablePolicy, *, name: str, start: str | None) -> None:
        self._policy = policy
        self._name = name
        self._variant = start
        # What waits is bounded by the job's own concurrency.
        self._places = Places(max_running=max(1, policy.max_running // 2), max_waiting=sys.maxsize)

    @property
    def rule(self) -> ConditioningRule:
        """How it reads a direction."""
        assert self._policy.rule is not None
        return self._policy.rule

    async def generate(
        self,
        messages: Turns,
        *,
        direction: PreferenceDirection,
        num: int,
        sampling: Sampling,
    ) -> Generated:
        """Draw completions for a prompt, conditioned on a direction.

        Raises:
            SteerwardError: Why there are none.
        """
        system = self.rule.condition(direction).system
        prompt = conditioned(Prompt(messages=tuple(messages)), system)
        drawn = PolicySampling(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        await self._places.take(num)
        try:
            deadline = time.perf_counter() + _CALL_S
            request = GenerationRequest([prompt] * num, drawn, deadline, self._variant)
            return await _collected(self._policy, request)
        finally:
            self._places.give_back(num)

    async def publish(self, folder: Path, kind: Literal["full", "lora"]) -> str:
        """Serve weights or an adapter from now on, and return their version.

        Raises:
            CheckpointRefused: If they do not fit; the old ones go on being served.
        """
        load = self._policy.load_adapter if kind == "lora" else self._policy.load_variant
        version = await in_thread(load, self._name, folder)
        self._variant = self._name
        return version


async def _collected(policy: Policy, request: GenerationRequest) -> Generated:
    generation = await policy.begin(request)
    num = len(request.prompts)
    texts, tokens = [""] * num, [0] * num
    reasons: list[FinishReason | None] = [None] * num
    try:
        async for piece in generation:
            texts[piece.index] += piece.text
            tokens[piece.index] += piece.num_tokens
            reasons[piece.index] = piece.finish_reason or reasons[piece.index]
    finally:
        await generation.aclose()
    if None in reasons:
        raise EngineFailure(f"the policy finished {num - reasons.count(None)} of {num} completions")
    return Generated(
        completions=[
            Completion(text, count, reason == "stop")
            for text, count, reason in zip(texts, tokens, reasons, strict=True)
        ],
        tokens=sum(tokens),
        weight_version=generation.weight_version,
    )


class ServedRewards:
    """A reward model of this server.

    Args:
        engine: That scores.
    """

    def __init__(self, engine: ServedModel) -> None:
        self._engine = engine
        self._rewards = EngineRewards(engine)

    @property
    def name(self) -> str:
        """Under which it is served."""
        return self._engine.name

    @property
    def weight_version(self) -> str:
        """Of the weights that score now."""
        return self._engine.weight_version

    @property
    def objectives(self) -> Sequence[str]:
        """Names of its rewards."""
        return self._rewards.objectives

    @property
    def has_score(self) -> bool:
        """Whether it has a score of its own: by its gate, or of its only objective."""
        return self._engine.model.gate is not None or len(self.objectives) == 1

    @property
    def reference(self) -> Mapping[str, tuple[float, float]] | None:
        """Mean and spread of each objective over its reference set; None if not known."""
        found: dict[str, tuple[float, float]] = {}
        for objective in self._engine.model.objectives.objectives:
            mean, std = objective.reference_mean, objective.reference_std
            if mean is None or std is None:
                return None
            found[objective.name] = (mean, std)
        return found

    async def score(self, messages: Turns, completions: Sequence[str]) -> Scored:
        """Score completions of one prompt.

        Raises:
            SteerwardError: Why there are no rewards.
        """
        ranking = await self._rewards.rank(
            messages, completions, direction=None, deadline=time.perf_counter() + _CALL_S
        )
        return Scored(
            rewards=[reward.rewards for reward in ranking.rewards],
            scores=[reward.score for reward in ranking.rewards],
            weight_version=ranking.weight_version,
        )
