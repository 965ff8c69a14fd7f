"""The scoring engine: takes requests, returns answers, refuses early, never guesses.

One queue and one device thread a model. The event loop does admission and assembly, a small
pool tokenises, the worker computes; a request crosses threads three times.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from steerward.config import EngineConfig
from steerward.engine.admission import forecast
from steerward.engine.answer import AnswerBuilder
from steerward.engine.batcher import split_group
from steerward.engine.inflight import InFlight, Ticket
from steerward.engine.items import Chunk, ItemOutput, ScoringItem, Submission
from steerward.engine.observation import Observer
from steerward.engine.runner import Runner
from steerward.engine.served import Scored
from steerward.engine.tokenization import TokenizerPool, estimate_tokens, placed, tokens_of
from steerward.engine.worker import Worker
from steerward.metrics import Metrics
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import (
    DeadlineExceeded,
    InputTooLong,
    NotReady,
    Overloaded,
    SteerwardError,
)
from steerward.protocol.items import TextItem
from steerward.protocol.scoring import ModelCard, ReplicaCard, ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest

State = Literal["starting", "ready", "draining", "failed", "stopped"]

# A forward pass should fill the caches of a CPU and no more, and keep a GPU busy.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


class Engine:
    """Scores requests with one reward model.

    Args:
        model: Loaded; the engine's worker owns it from `start` on.
        name: Under which it is served.
        config: Limits and batch sizes.
        metrics: Of this process.
        observer: Shared by the replicas of a model; by default the engine's own.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        name: str,
        config: EngineConfig,
        metrics: Metrics,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self._config = config
        self._observer = observer or Observer(metrics, model=name, objectives=model.objectives)
        self.max_batch_tokens = config.max_batch_tokens or _BATCH_TOKENS[model.device.type]
        runner = Runner(
            model,
            prefix_cache_bytes=config.prefix_cache_bytes,
            deterministic=config.deterministic,
        )
        self.device = self._observer.add_replica(
            str(model.device),
            queued_tokens=lambda: self.queued_tokens,
            cached_bytes=lambda: runner.cached_bytes,
        )
        self._worker = Worker(
            runner,
            max_batch_tokens=self.max_batch_tokens,
            observer=self._observer,
            on_ready=self._become_ready,
            on_failure=self._become_failed,
        )
        self._pool = TokenizerPool(model, num_threads=config.tokenizer_threads)
        self._in_flight = InFlight()
        self._state: State = "starting"
        self._reason = "the model is warming up"
        self._warm: Future[None] = Future()
        self._started_at = int(time.time())

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self._state == "ready"

    @property
    def reason(self) -> str:
        """Why requests are not taken, where they are not."""
        return "" if self.is_ready else self._reason

    @property
    def weight_version(self) -> str:
        """Identity of the weights that give the scores."""
        return self.model.weight_version

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device, with a guess for texts that are being tokenised."""
        return self._worker.queued_tokens + self._pool.pending_tokens

    @property
    def load_tokens(self) -> int:
        """Tokens that wait or run, with a guess for texts that are being tokenised."""
        return self._worker.backlog().num_tokens + self._pool.pending_tokens

    def start(self) -> None:
        """Start the worker; `is_ready` turns true when it is warm."""
        self._worker.start()

    async def wait_until_ready(self) -> None:
        """Return when the engine is warm.

        Raises:
            NotReady: If the device failed instead.
        """
        # A caller that gives up must not cancel what the worker will set.
        await asyncio.shield(asyncio.wrap_future(self._warm))

    async def score(self, request: ScoreRequest) -> Scored:
        """Return the scores of a request.

        Raises:
            SteerwardError: Any of the request's, the queue's or the device's errors. No part of
                an answer is returned if one candidate fails.
        """
        began_at = time.perf_counter()
        self._check_size(request.items)
        builder = AnswerBuilder(self.model, name=self.name, request=request)
        timeout_s = self.timeout_s(request)
        deadline = began_at + timeout_s
        self._admit(estimate_tokens(request.items), deadline=deadline)
        try:
            async with asyncio.timeout(timeout_s):
                groups = await self._pool.encode(request.items)
                tokenised_at = time.perf_counter()
                outputs = await self._compute(request, groups, deadline=deadline)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no scores after {timeout_s:g} s (timeout_s of the request, at most the server's "
                f"{self._config.request_timeout_s:g} s); send less at once or allow more time"
            ) from None
        arrays = builder.build(groups, outputs)
        queue_s = max(output.queue_s for output in outputs)
        stages = {
            "tokenisation": tokenised_at - began_at,
            "queue": queue_s,
            "inference": max(output.queue_s + output.inference_s for output in outputs) - queue_s,
            "total": time.perf_counter() - began_at,
        }
        self._observer.record_answer(self.device, stages)
        return Scored(arrays, stages)

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Return the token ids of a request's items, as `score` would read them.

        Raises:
            SteerwardError: Any of the request's errors, or those of a queue that is full.
        """
        self._check_size(request.items)
        limit_s = self._config.request_timeout_s
        self._admit(0, deadline=time.perf_counter() + limit_s)
        try:
            async with asyncio.timeout(limit_s):
                groups = await self._pool.encode(request.items)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no token ids after {limit_s:g} s, the server's limit; send less at once"
            ) from None
        items = [tokens_of(self.model, i, item_groups) for i, item_groups in enumerate(groups)]
        return {
            "object": "tokens",
            "model": self.name,
            "weight_version": self.weight_version,
            "items": items,
        }

    def timeout_s(self, request: ScoreRequest) -> float:
        """Return the seconds that a request may take."""
        limit_s = self._config.request_timeout_s
        return min(request.timeout_s or limit_s, limit_s)

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        if self._state in ("starting", "ready"):
            self._set_state("draining", "the server is shutting down")

    def close(self) -> None:
        """Answer what still waits with `NotReady` and stop all threads."""
        self._set_state("stopped", "the server has stopped")
        self._worker.close(timeout_s=10.0)
        self._pool.close()

    def card(self) -> ModelCard:
        """Return what clients may know of the model and its queue."""
        model = self.model
        return ModelCard(
            id=self.name,
            created=self._started_at,
            architecture=model.architecture,
            objectives=list(model.objectives.objectives),
            has_gate=model.gate is not None,
            max_input_tokens=model.max_input_tokens,
            weight_version=model.weight_version,
            dtype=str(model.backbone.dtype).removeprefix("torch."),
            device=str(model.device),
            num_parameters=model.num_parameters,
            queued_tokens=self.queued_tokens,
            replicas=[
                ReplicaCard(
                    device=self.device,
                    is_ready=self.is_ready,
                    reason=self.reason,
                    queued_tokens=self.queued_tokens,
                )
            ],
        )

    def _check_size(self, items: Sequence[TextItem]) -> None:
        config = self._config
        if len(items) > config.max_items:
            raise InputTooLong(
                f"{len(items)} items, limit {config.max_items}; send several requests",
                param="items",
            )
        candidates = sum(item.num_candidates for item in items)
        if candidates > config.max_candidates:
            raise InputTooLong(
                f"{candidates} candidates, limit {config.max_candidates}; send several requests",
                param="items",
            )

    def _admit(self, tokens: int, *, deadline: float) -> None:
        """Refuse a request, of about so many tokens, that is better not tokenised."""
        if not self.is_ready:
            raise NotReady(self._reason, retry_after_s=5.0 if self._state == "starting" else 30.0)
        queued, limit = self.queued_tokens, self._config.max_queued_tokens
        if queued >= limit:
            speed = self._worker.backlog().tokens_per_s
            raise _overloaded(
                f"{queued:,} tokens wait already, limit {limit:,}; try again later",
                retry_after_s=queued / speed if speed else 1.0,
            )
        self._check_wait(tokens, deadline=deadline, pending=self._pool.pending_tokens)

    def _check_wait(self, tokens: int, *, deadline: float, pending: int = 0) -> None:
        """Refuse a request that would be late, or make one late that was admitted before it.

        One that finds nothing to wait for is let in whatever it takes: later is no better.
        """
        backlog = self._worker.backlog()
        backlog = dataclasses.replace(backlog, running=backlog.running + pending)
        if not backlog.tokens_per_s or not backlog.num_tokens:
            return
        now = time.perf_counter()
        expected = forecast(
            backlog, tokens=tokens, deadline=deadline, now=now, pass_tokens=self.max_batch_tokens
        )
        if expected.excess_s > 0:
            raise _overloaded(
                f"the scores may take {expected.wait_s:.1f} s and {deadline - now:.1f} s are left: "
                f"this request, or one admitted before it, would be {expected.excess_s:.1f} s "
                "late; try again later, send less at once or allow more time (timeout_s)",
                retry_after_s=expected.excess_s,
            )

    async def _compute(
        self, request: ScoreRequest, groups: Sequence[Sequence[Group]], *, deadline: float
    ) -> list[ItemOutput]:
        tickets: list[Ticket] = []
        submission = Submission(deadline)
        try:
            for item_groups in groups:
                ticket = self._in_flight.join(item_groups, submission)
                tickets.append(ticket)
                if ticket.is_own:
                    for chunk in self._chunks(ticket.item, item_groups):
                        submission.add(chunk)
                else:
                    self._observer.record_joined(sum(len(group.suffixes) for group in item_groups))
            if submission.chunks:
                # Now the tokens are known; others that are being tokenised come after these.
                self._check_wait(submission.num_tokens, deadline=deadline)
                self._worker.submit(submission)
            return [await ticket.output() for ticket in tickets]
        except SteerwardError as error:
            if error.param is None:
                raise
            failed = next(i for i, ticket in enumerate(tickets) if ticket.has_failed)
            raise placed(error, failed, request.items[failed]) from error
        finally:
            # On success nothing is left.
            for unwanted in {self._in_flight.leave(ticket) for ticket in tickets}:
                if unwanted is not None:
                    self._worker.drop_cancelled(unwanted)

    def _chunks(self, item: ScoringItem, groups: Sequence[Group]) -> Iterator[Chunk]:
        item.has_one_prompt = len(groups) == 1
        first = 0
        for group in groups:
            for part, tokens in split_group(group, max_tokens=self.max_batch_tokens):
                item.num_chunks += 1
                yield Chunk(item, first, part, tokens)
                first += len(part.suffixes)

    def _become_ready(self) -> None:
        if self._state == "starting":
            self._set_state("ready", "")
        self._warm.set_result(None)

    def _become_failed(self, reason: str) -> None:
        self._set_state("failed", reason)
        if not self._warm.done():
            self._warm.set_exception(NotReady(reason))

    def _set_state(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        self._observer.record_ready(self.device, state == "ready")


def _overloaded(message: str, *, retry_after_s: float) -> Overloaded:
    return Overloaded(message, retry_after_s=min(max(retry_after_s, 1.0), 60.0))
