"""The scoring engine: takes requests, returns answers, refuses early, never guesses.

One queue and one device thread a model. The event loop does admission and assembly, a small
pool tokenises, the worker computes; a request crosses threads three times.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from steerward.config import EngineConfig
from steerward.engine.answer import AnswerBuilder
from steerward.engine.arrays import ScoredArrays
from steerward.engine.batcher import split_group
from steerward.engine.items import Chunk, ItemOutput, ScoringItem
from steerward.engine.observation import Observer
from steerward.engine.runner import Runner
from steerward.engine.tokenization import TokenizerPool, placed, tokens_of
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
from steerward.protocol.scoring import ModelCard, ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest

State = Literal["starting", "ready", "draining", "failed", "stopped"]

# A forward pass should fill the caches of a CPU and no more, and keep a GPU busy.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


@dataclass(frozen=True, slots=True)
class Scored:
    """What a request was scored with, and the time it took, by stage, in seconds."""

    arrays: ScoredArrays
    stages: dict[str, float]

    @property
    def answer(self) -> dict[str, Any]:
        """The answer by name.

        Raises:
            NonFiniteScore: If a rating is not finite.
        """
        return self.arrays.by_name()


class Engine:
    """Scores requests with one reward model.

    Args:
        model: Loaded; the engine's worker owns it from `start` on.
        name: Under which it is served.
        config: Limits and batch sizes.
        metrics: Of this process.
    """

    def __init__(
        self, model: RewardModel, *, name: str, config: EngineConfig, metrics: Metrics
    ) -> None:
        self.model = model
        self.name = name
        self._config = config
        self._observer = Observer(metrics, model=name, objectives=model.objectives)
        self._observer.record_ready(False)
        self.max_batch_tokens = config.max_batch_tokens or _BATCH_TOKENS[model.device.type]
        runner = Runner(
            model,
            prefix_cache_bytes=config.prefix_cache_bytes,
            deterministic=config.deterministic,
        )
        self._observer.watch_cache(lambda: runner.cached_bytes)
        self._worker = Worker(
            runner,
            max_batch_tokens=self.max_batch_tokens,
            observer=self._observer,
            on_ready=self._become_ready,
            on_failure=self._become_failed,
        )
        self._pool = TokenizerPool(model, num_threads=config.tokenizer_threads)
        self._observer.watch_queue(lambda: self.queued_tokens)
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
        self._admit()
        limit_s = self._config.request_timeout_s
        timeout_s = min(request.timeout_s or limit_s, limit_s)
        try:
            async with asyncio.timeout(timeout_s):
                groups = await self._pool.encode(request.items)
                tokenised_at = time.perf_counter()
                outputs = await self._compute(request, groups)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no scores after {timeout_s:g} s (timeout_s of the request, at most the "
                f"server's {limit_s:g} s); send less at once or allow more time"
            ) from None
        arrays = builder.build(groups, outputs)
        queue_s = max(output.queue_s for output in outputs)
        stages = {
            "tokenisation": tokenised_at - began_at,
            "queue": queue_s,
            "inference": max(output.queue_s + output.inference_s for output in outputs) - queue_s,
            "total": time.perf_counter() - began_at,
        }
        self._observer.record_stages(stages)
        return Scored(arrays, stages)

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Return the token ids of a request's items, as `score` would read them.

        Raises:
            SteerwardError: Any of the request's errors, or those of a queue that is full.
        """
        self._check_size(request.items)
        self._admit()
        limit_s = self._config.request_timeout_s
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

    def _admit(self) -> None:
        if not self.is_ready:
            raise NotReady(self._reason, retry_after_s=5.0 if self._state == "starting" else 30.0)
        queued, limit = self.queued_tokens, self._config.max_queued_tokens
        if queued >= limit:
            speed = self._worker.tokens_per_s
            wait_s = queued / speed if speed else 1.0
            raise Overloaded(
                f"{queued:,} tokens wait already, limit {limit:,}; try again later",
                retry_after_s=min(max(wait_s, 1.0), 60.0),
            )

    async def _compute(
        self, request: ScoreRequest, groups: Sequence[Sequence[Group]]
    ) -> list[ItemOutput]:
        items: list[ScoringItem] = []
        try:
            for item_groups in groups:
                items.append(self._submit(item_groups))
            return [await item.future for item in items]
        except SteerwardError as error:
            if error.param is None:
                raise
            failed = next(i for i, item in enumerate(items) if _has_failed(item.future))
            raise placed(error, failed, request.items[failed]) from error
        finally:
            # On success nothing is left to cancel; else the worker skips what has not run.
            for item in items:
                item.is_cancelled = True
                if item.future.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        item.future.exception()
                else:
                    item.future.cancel()

    def _submit(self, groups: Sequence[Group]) -> ScoringItem:
        loop = asyncio.get_running_loop()
        item = ScoringItem(loop.create_future(), time.perf_counter())
        chunks: list[Chunk] = []
        first = 0
        for group in groups:
            for part in split_group(group, max_tokens=self.max_batch_tokens):
                chunks.append(Chunk(item, first, part, part.num_tokens))
                first += len(part.suffixes)
        item.has_one_prompt = len(groups) == 1
        item.num_chunks = len(chunks)
        self._worker.submit(chunks)
        return item

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
        self._observer.record_ready(state == "ready")


def _has_failed(future: asyncio.Future[ItemOutput]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None
