"""From the samples of a generation to the choices that are returned, with their rewards.

Two ways: `Streamed` passes pieces on as they come and adds rewards at the end, `Selected` waits
for all samples and returns the best. Both score in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from steerward.policy.case import Turns
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
        self._scoring: asyncio.Task[Ranking] | None = None
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
        scoring = self._scoring
        if scoring is not None and not scoring.done():
            scoring.cancel()
            await asyncio.wait([scoring])
        await self._generation.aclose()

    def _record(self, piece: Piece) -> None:
        self.completion_tokens += piece.num_tokens
        self._texts[piece.index].append(piece.text)
        if piece.finish_reason is not None:
            self._finished[piece.index] = piece.finish_reason

    async def _rank(self) -> Ranking | None:
        """Return the ranking of all samples; None if everything was closed meanwhile."""
        if self._is_closed:
            return None
        if len(self._finished) < len(self._texts):
            raise EngineFailure(
                f"the policy finished {len(self._finished)} of {len(self._texts)} completions"
            )
        source, conversation = self._source, self._plan.conversation
        assert source is not None
        assert conversation is not None
        completions = ["".join(texts) for texts in self._texts]
        self._scoring = asyncio.create_task(self._score(source, conversation, completions))
        try:
            self.ranking = await self._scoring
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_closed and not (task is not None and task.cancelling()):
                return None
            raise
        except SteerwardError as error:
            raise self._explained(error) from error
        return self.ranking

    async def _score(
        self, source: RewardSource, conversation: Turns, completions: Sequence[str]
    ) -> Ranking:
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
