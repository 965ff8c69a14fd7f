"""From the samples of a generation to the choices that are returned, with their rewards.

Two ways: `Streamed` passes pieces on as they come and adds rewards at the end, `Selected` waits
for all samples and returns the best. Both score in two calls at most: what has ended when half of
the samples have is scored while the others are drawn, and only these are left to score at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from steerward.policy.generation import FinishReason, Generation, Piece, TokenLogprob
from steerward.policy.plan import Plan
from steerward.policy.steering_types import Part, Ranking, Reward, RewardSource
from steerward.protocol.errors import EngineFailure, InvalidRequest, SteerwardError


def best(rewards: Sequence[Reward], num: int, *, by_direction: bool) -> list[int]:
    """Return the indices of the best rewards, best first; of equals the earlier is better.

    Raises:
        InvalidRequest: If there is no score, and no direction to score by.
        EngineFailure: If there is no score for the direction.
    """
    values = [reward.direction_score if by_direction else reward.score for reward in rewards]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        if by_direction:
            raise EngineFailure("the reward model gave no direction score to choose by")
        raise InvalidRequest(
            "the reward model has no score of its own to choose by; give a direction",
            param="direction",
        )
    # Sorting is stable, so equals stay in the order in which they were drawn.
    return sorted(range(len(known)), key=lambda index: -known[index])[:num]


# One completion alone would not be worth a call of its own.
_FEWEST_EARLY = 2


class _Delivery:
    """What both ways have in common: the totals, the ranking, and the end.

    Args:
        generation: Just begun; closed with this.
        plan: That it was begun for.
        source: Scores the completions, if the plan says so.
        deadline: `time.perf_counter()` at which scoring is given up.
    """

    def __init__(
        self, generation: Generation, plan: Plan, source: RewardSource | None, *, deadline: float
    ) -> None:
        self.report = plan.report
        self.weight_version = generation.weight_version
        self.system_fingerprint = generation.system_fingerprint
        self.completion_tokens = 0
        self.ranking: Ranking | None = None
        self._generation = generation
        self._plan = plan
        self._source = source
        self._deadline = deadline
        # Which samples each scores.
        self._scorings: dict[asyncio.Task[Ranking], Sequence[int]] = {}
        self._is_closed = False
        num = len(plan.prompts)
        self._texts: list[list[str]] = [[] for _ in range(num)]
        self._finished: dict[int, FinishReason] = {}

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the distinct prompts; may be known only at the end."""
        return self._generation.prompt_tokens

    async def aclose(self) -> None:
        """Give up what is not done, generation or scoring. May be called twice."""
        self._is_closed = True
        for scoring in self._scorings:
            scoring.cancel()
        try:
            await self._generation.aclose()
        finally:
            # Why one has failed interests nobody any more.
            await asyncio.gather(*self._scorings, return_exceptions=True)

    def _record(self, piece: Piece) -> None:
        self.completion_tokens += piece.num_tokens
        self._texts[piece.index].append(piece.text)
        if piece.finish_reason is not None:
            self._finished[piece.index] = piece.finish_reason
            # Not at once: more of them may have ended in the same step.
            asyncio.get_running_loop().call_soon(self._score_early)

    def _score_early(self) -> None:
        """Score what has ended, once, if that is half of the samples and others go on."""
        if self._plan.conversation is None or self._scorings or self._is_closed:
            return
        if max(_FEWEST_EARLY, len(self._texts) / 2) <= len(self._finished) < len(self._texts):
            self._begin_scoring(sorted(self._finished))

    async def _rank(self) -> Ranking | None:
        """Return the ranking of all samples; None if everything was closed meanwhile."""
        if self._is_closed:
            return None
        if len(self._finished) < len(self._texts):
            raise EngineFailure(
                f"the policy finished {len(self._finished)} of {len(self._texts)} completions"
            )
        try:
            self.ranking = await self._ranking()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_closed and not (task is not None and task.cancelling()):
                return None
            raise
        except SteerwardError as error:
            raise self._explained(error) from error
        return self.ranking

    async def _ranking(self) -> Ranking:
        every = range(len(self._texts))
        is_early: set[int] = set()
        for scoring, samples in self._scorings.items():
            if scoring.done():
                scoring.result()  # Where it failed, the rest need not be scored.
            is_early.update(samples)
        self._begin_scoring([sample for sample in every if sample not in is_early])
        rankings = await asyncio.gather(*self._scorings)
        if len({ranking.weight_version for ranking in rankings}) > 1:
            # Another model has taken over in between, and its rewards are on no common scale.
            return await self._begin_scoring(every)
        rewards: dict[int, Reward] = {}
        for samples, ranking in zip(self._scorings.values(), rankings, strict=True):
            rewards.update(zip(samples, ranking.rewards, strict=True))
        return replace(rankings[0], rewards=[rewards[sample] for sample in every])

    def _begin_scoring(self, samples: Sequence[int]) -> asyncio.Task[Ranking]:
        scoring = asyncio.create_task(self._score(samples))
        self._scorings[scoring] = samples
        return scoring

    async def _score(self, samples: Sequence[int]) -> Ranking:
        source, conversation = self._source, self._plan.conversation
        assert source is not None
        assert conversation is not None
        completions = ["".join(self._texts[sample]) for sample in samples]
        ranking = await source.rank(
            conversation,
            completions,
            direction=self._plan.reward_direction,
            deadline=self._deadline,
        )
        if len(ranking.rewards) != len(completions):
            raise EngineFailure(
                f"{len(ranking.rewards)} rewards came back for {len(completions)} completions"
            )
        return ranking

    def _explained(self, error: SteerwardError) -> SteerwardError:
        """Return an error of the reward model as the caller of a policy understands it."""
        if self._plan.selects:
            message = f"the completions could not be ranked: {error.message}"
            param = "steering"
        else:
            message = (
                f"the completions could not be scored: {error.message}; send reward: false to get "
                "them without rewards"
            )
            param = "reward"
        # Places such as items[0].candidates[2] are not in this caller's request.
        told = type(error)(
            message,
            param=None if error.param is None else param,
            retry_after_s=error.retry_after_s,
        )
        told.request_id = error.request_id
        return told


class Streamed(_Delivery):
    """All samples, piece by piece; where rewards are wanted, each ends when they are there."""

    async def __aiter__(self) -> AsyncIterator[Part]:
        """Yield the pieces as they come, then the rewards."""
        is_scored = self._plan.conversation is not None
        async for piece in self._generation:
            self._record(piece)
            finish_reason = None if is_scored else piece.finish_reason
            if piece.text or piece.logprobs or finish_reason:
                yield Part(piece.index, piece.text, piece.logprobs, finish_reason)
        ranking = await self._rank() if is_scored else None
        if ranking is not None:
            for index, reward in enumerate(ranking.rewards):
                yield Part(index, finish_reason=self._finished[index], reward=reward)


class Selected(_Delivery):
    """The best samples, whole, best first."""

    async def __aiter__(self) -> AsyncIterator[Part]:
        """Yield one part for each choice, when all samples are drawn and scored."""
        logprobs: list[list[TokenLogprob]] = [[] for _ in self._texts]
        async for piece in self._generation:
            self._record(piece)
            logprobs[piece.index] += piece.logprobs
        ranking = await self._rank()
        if ranking is None:
            return
        by_direction = self._plan.reward_direction is not None
        chosen = best(ranking.rewards, self._plan.num_returned, by_direction=by_direction)
        for index, sample in enumerate(chosen):
            yield Part(
                index,
                "".join(self._texts[sample]),
                tuple(logprobs[sample]),
                self._finished[sample],
                ranking.rewards[sample],
            )
