"""One model on several devices, in one process and under one name.

Each replica is an engine of its own: weights, queue, device thread, tokenizer threads. A request
goes whole to one replica. If that dies, requests that waited there are moved to one that lives;
those in the batch that failed are not, since their texts may be what broke it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from steerward.engine.engine import Engine
from steerward.engine.routing import Router, prompt_key
from steerward.engine.served import Scored
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import CheckpointRefused, NotReady, Overloaded, SteerwardError
from steerward.protocol.scoring import ModelCard, ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest

logger = logging.getLogger(__name__)


class EngineGroup:
    """Equal engines that answer as one.

    Requests of a prompt go to the replica that has seen it, unless that has more than a forward
    pass more to do than the one with the least; all others go to that one.

    Args:
        engines: Of the same weights and name, one a device.

    Raises:
        CheckpointRefused: If their weights differ.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        first = self.engines[0]
        self.name = first.name
        self.model: RewardModel = first.model
        self.weight_version = first.weight_version
        for engine in self.engines:
            if engine.weight_version != self.weight_version:
                raise CheckpointRefused(
                    f"{self.name}: the weights on {engine.device} have version "
                    f"{engine.weight_version}, those on {first.device} {self.weight_version}; the "
                    "checkpoint changed while it was loaded, start again"
                )
        self._router = Router(slack_tokens=first.max_batch_tokens)

    @property
    def is_ready(self) -> bool:
        """Whether a replica takes requests."""
        return any(engine.is_ready for engine in self.engines)

    @property
    def reason(self) -> str:
        """Why some replicas take no requests; empty if all do."""
        return "; ".join(
            f"{engine.device}: {engine.reason}" for engine in self.engines if not engine.is_ready
        )

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for any device, with a guess for texts that are being tokenised."""
        return sum(engine.queued_tokens for engine in self.engines)

    def card(self) -> ModelCard:
        """Return what clients may know of the model, its devices and their queues."""
        cards = [engine.card() for engine in self.engines]
        return cards[0].model_copy(
            update={
                "device": ", ".join(card.device for card in cards),
                "queued_tokens": sum(card.queued_tokens for card in cards),
                "replicas": [replica for card in cards for replica in card.replicas],
            }
        )

    def start(self) -> None:
        """Start all replicas; requests are taken as soon as one is warm."""
        for engine in self.engines:
            engine.start()

    async def wait_until_ready(self) -> None:
        """Return when all replicas are warm or have failed.

        Raises:
            NotReady: If all have failed.
        """
        waiting = [engine.wait_until_ready() for engine in self.engines]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if len(failures) == len(results):
            raise failures[0]

    async def score(self, request: ScoreRequest) -> Scored:
        """Return the answer of a request, from the replica that suits it best.

        Raises:
            SteerwardError: As an engine does. A request is `Overloaded` if all replicas are.
        """
        began_at = time.perf_counter()
        prompts = [prompt_key(item) for item in request.items]
        refusal: SteerwardError | None = None
        tried: set[int] = set()
        while (i := self._next(prompts, tried)) is not None:
            engine = self.engines[i]
            tried.add(i)
            # At once: requests of these prompts that come meanwhile are to go there too.
            note = self._router.note(prompts, i)
            passed_s = time.perf_counter() - began_at if refusal else 0.0
            try:
                scored = await engine.score(_with_time_left(request, engine, passed_s))
            except Overloaded as error:
                self._router.take_back(note)
                refusal = error
            except NotReady as error:
                self._router.take_back(note)
                logger.info("%s: a request leaves %s", self.name, engine.device)
                refusal = refusal or error
            else:
                stages = scored.stages | {"total": scored.stages["total"] + passed_s}
                return dataclasses.replace(scored, stages=stages)
        raise refusal or NotReady(self.reason, retry_after_s=5.0)

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Return the token ids of a request's items, from the replica with the least to do.

        Raises:
            SteerwardError: As an engine does.
        """
        ready = [engine for engine in self.engines if engine.is_ready]
        if not ready:
            raise NotReady(self.reason, retry_after_s=5.0)
        return await min(ready, key=lambda engine: engine.load_tokens).tokenize(request)

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        for engine in self.engines:
            engine.begin_drain()

    def close(self) -> None:
        """Close all replicas at once: each answers what waits, and may take seconds to end."""
        with ThreadPoolExecutor(len(self.engines)) as pool:
            list(pool.map(Engine.close, self.engines))

    def _next(self, prompts: Sequence[int], tried: set[int]) -> int | None:
        loads = {
            i: engine.load_tokens
            for i, engine in enumerate(self.engines)
            if engine.is_ready and i not in tried
        }
        return self._router.order(prompts, loads)[0] if loads else None


def _with_time_left(request: ScoreRequest, engine: Engine, passed_s: float) -> ScoreRequest:
    """Return the request with what is left of its time after an attempt that came to nothing."""
    if not passed_s:
        return request
    left_s = max(engine.timeout_s(request) - passed_s, 0.001)
    return request.model_copy(update={"timeout_s": left_s})
