"""A policy of this process: admission on the event loop, decoding in a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from steerward.models.source import resolve_source
from steerward.policy.generation import GenerationRequest, Prompt
from steerward.policy.local.assembly import Assembly
from steerward.policy.local.cache import CacheShape, PagedCache
from steerward.policy.local.capacity import num_blocks, within_cache
from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.policy.local.decoder import Decoder
from steerward.policy.local.generation import LocalGeneration
from steerward.policy.local.model import Weights
from steerward.policy.local.sequence import Job
from steerward.policy.local.served_weights import ServedWeights
from steerward.policy.local.text import TokenTexts
from steerward.policy.local.threads import use_threads_for
from steerward.policy.local.warm_up import warm_up
from steerward.policy.local.worker import Delivery, Worker
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.errors import (
    InputTooLong,
    NotReady,
    Overloaded,
)
from steerward.protocol.policies import PolicyCard

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "draining", "failed", "stopped"]

# Prompt tokens that one step reads: what a completion waits for its next token at most.
_STEP_TOKENS = {"cpu": 512, "cuda": 4096}


class LocalPolicy:
    """Draws completions with a transformers model, in continuous batches over a paged cache.

    Args:
        checkpoint: Loaded; the policy's thread owns its model from `start` on.
        name: Under which it is served.
        max_running: Completions drawn at once.
        max_waiting: Completions that may wait; more are refused.
        cache_bytes: Most memory for keys and values.

    The length limit is what the model reaches, or what the cache holds, if that is less.

    Raises:
        CheckpointRefused: If the cache holds next to nothing.
    """

    def __init__(
        self,
        checkpoint: LocalCheckpoint,
        *,
        name: str,
        max_running: int,
        max_waiting: int,
        cache_bytes: int,
    ) -> None:
        self._name = name
        self._max_running = max_running
        self._max_waiting = max_waiting
        model = checkpoint.weights.model
        shape = CacheShape.of(model.config, model.dtype)
        checkpoint = within_cache(checkpoint, shape, cache_bytes, name=name)
        self._checkpoint = checkpoint
        blocks = num_blocks(checkpoint, shape, max_running, cache_bytes)
        cache = PagedCache(shape, num_blocks=blocks, device=model.device)
        self._assembly = Assembly(checkpoint)
        self._worker = Worker(
            Decoder(
                cache,
                TokenTexts(checkpoint.tokenizer),
                max_running=max_running,
                max_step_tokens=_STEP_TOKENS[model.device.type],
            ),
            deliver=self._deliver,
            begin=self._prepare_thread,
            warm_up=lambda: warm_up(self._weights.own, cache),
            on_ready=self._become_ready,
            on_failure=self._become_failed,
        )
        self._weights = ServedWeights(
            checkpoint.weights,
            name=name,
            worker=self._worker,
            max_positions=checkpoint.max_positions,
        )
        self._encoding = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="policy-tokenizer")
        self._generations: dict[Job, LocalGeneration] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: State = "starting"
        self._reason = "the policy is warming up"
        self._warm: Future[None] = Future()
        self._started_at = int(time.time())

    @property
    def name(self) -> str:
        """Under which it is served."""
        return self._name

    @property
    def variants(self) -> Sequence[str]:
        """Names of what is served beside it: adapters, and whole sets of weights."""
        return self._weights.variants

    @property
    def rule(self) -> ConditioningRule | None:
        """How it reads a direction."""
        return self._checkpoint.rule

    @property
    def folder(self) -> Path:
        """Of the checkpoint that is served under its own name."""
        return self._checkpoint.folder

    @property
    def max_running(self) -> int:
        """Completions that it draws at once."""
        return self._max_running

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self._state == "ready"

    @property
    def reason(self) -> str:
        """Why requests are not taken; empty if they are."""
        return "" if self.is_ready else self._reason

    def card(self, variant: str | None = None) -> PolicyCard:
        """Return what clients may know of it, or of one of its variants.

        Raises:
            NotFound: If there is no such variant.
        """
        weights, load = self._weights.of(variant), self._worker.load
        model = weights.model
        return PolicyCard(
            id=variant or self._name,
            created=self._started_at,
            parent=self._name if variant else None,
            conditioning=self.rule,
            max_input_tokens=self._checkpoint.max_positions,
            weight_version=weights.version,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            num_parameters=weights.num_parameters,
            running=load.running,
            waiting=load.waiting,
        )

    def start(self) -> None:
        """Start to warm up."""
        self._worker.start()

    async def wait_until_ready(self) -> None:
        """Return when it is warm.

        Raises:
            NotReady: If it cannot be.
        """
        await asyncio.shield(asyncio.wrap_future(self._warm))

    async def begin(self, request: GenerationRequest) -> LocalGeneration:
        """Check, admit and start a request.

        Raises:
            SteerwardError: All that can be known before the first token.
        """
        timeout_s = request.deadline - time.perf_counter()
        num_samples = len(request.prompts)
        self._admit(num_samples)
        weights = self._weights.take(request.variant)
        try:
            ids = await self._encode(request.prompts)
            self._admit(num_samples)
            return self._start(request, weights, ids, timeout_s=timeout_s)
        except BaseException:
            self._weights.give_back(weights)
            raise

    async def _encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        self._encoding += len(prompts)
        try:
            encode = self._assembly.encode
            return await asyncio.get_running_loop().run_in_executor(self._pool, encode, prompts)
        finally:
            self._encoding -= len(prompts)

    def _start(
        self,
        request: GenerationRequest,
        weights: Weights,
        ids: Sequence[Sequence[int]],
        *,
        timeout_s: float,
    ) -> LocalGeneration:
        job = Job(weights)
        prompts = self._assembly.prompts(job, request, ids)
        generation = LocalGeneration(
            num_samples=len(request.prompts),
            prompt_tokens=sum(len(prompt.ids) for prompt in prompts),
            weight_version=weights.version,
            system_fingerprint=self._fingerprint(weights),
            deadline=request.deadline,
            timeout_s=timeout_s,
            cancel=lambda: self._cancel(job),
        )
        self._loop = asyncio.get_running_loop()
        self._worker.submit(prompts)
        self._generations[job] = generation
        return generation

    def swap_weights(self, folder: str | Path) -> str:
        """Let requests from now on be drawn by the weights of a folder; return their version.

        Those that run are finished with the weights they began with; both are in memory until
        then. Blocks while it loads: call it in a thread. Adapters belong to the old weights, so
        they are dropped; variants with weights of their own stay.

        Raises:
            CheckpointRefused: If the weights do not fit the tokenizer, or do not load.
        """
        new = self._weights.replace_own(folder)
        # It would keep the old ones in memory.
        self._checkpoint = dataclasses.replace(
            self._checkpoint, folder=resolve_source(str(folder)), weights=new
        )
        self._assembly = Assembly(self._checkpoint)
        logger.info("%s: weights %s take over", self._name, new.version)
        return new.version

    def load_variant(self, name: str, folder: str | Path) -> str:
        """Serve a whole model of the same shape under a name beside the policy's.

        It shares all but the weights: places, cache, tokenizer, rule, defaults and limits. What
        was served under that name, adapter or weights, is replaced at one moment: requests that
        run are finished with what they began with, and then it leaves the memory. Blocks while it
        loads: call it in a thread.

        Returns:
            The version of the weights.

        Raises:
            NotFound: If there is no such checkpoint.
            CheckpointRefused: If it does not load, is of another shape, or has the policy's name.
        """
        new = self._weights.add_variant(name, folder)
        logger.info("%s: weights %s are served as %s", self._name, new.version, name)
        return new.version

    def load_adapter(self, name: str, folder: str | Path) -> str:
        """Serve a LoRA adapter under a name, or another one under the same; return its version.

        What was served under that name, adapter or weights, is replaced at one moment: requests
        that run are finished with what they began with, and then it leaves the memory. Blocks
        while it loads: call it in a thread.

        Raises:
            CheckpointRefused: If the adapter does not fit the weights, or has the policy's name.
        """
        return self._weights.add_adapter(name, Path(folder)).version

    def drop(self, name: str) -> None:
        """Serve a variant no more, adapter or weights; requests that run with it are finished.

        It may wait for a step: call it in a thread.

        Raises:
            NotFound: If there is none of that name.
        """
        self._weights.drop(name)

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        if self._state in ("starting", "ready"):
            self._state, self._reason = "draining", "the server is shutting down"

    def close(self) -> None:
        """End what still runs with `NotReady` and stop all threads."""
        self._state, self._reason = "stopped", "the server has stopped"
        self._worker.close(self._reason, timeout_s=10.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fingerprint(self, weights: Weights) -> str:
        """Return a name for all that may change what a seed gives."""
        rule = self.rule.model_dump_json() if self.rule else ""
        where = f"{weights.model.dtype}/{weights.model.device.type}"
        parts = "\0".join((weights.base_version, weights.version, where, rule))
        return f"fp_{hashlib.sha256(parts.encode()).hexdigest()[:12]}"

    def _admit(self, num_samples: int) -> None:
        if not self.is_ready:
            raise NotReady(self._reason, retry_after_s=5.0 if self._state == "starting" else 30.0)
        if num_samples > self._max_waiting:
            raise InputTooLong(
                f"{num_samples} completions in one request, limit {self._max_waiting} "
                "(--max-waiting-completions); send several requests"
            )
        waiting = self._worker.load.waiting + self._encoding
        if waiting + num_samples > self._max_waiting:
            raise Overloaded(
                f"{waiting} completions wait already and this request asks for {num_samples} more, "
                f"limit {self._max_waiting}; try again later, or ask for fewer",
                retry_after_s=1.0,
            )

    def _cancel(self, job: Job) -> None:
        if self._generations.pop(job, None) is not None:
            # In this order: the last to give an adapter back lets it be taken out of the model.
            self._worker.cancel(job)
            self._weights.give_back(job.weights)

    def _deliver(self, delivery: Delivery) -> None:
        """Hand a step's results to the event loop; called in the device thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over, delivery)

    def _hand_over(self, delivery: Delivery) -> None:
        for job, result in delivery:
            generation = self._generations.get(job)
            if generation is None:
                continue  # Cancelled meanwhile.
            generation.put(result)
            if generation.is_complete:
                del self._generations[job]
                self._weights.give_back(job.weights)

    def _prepare_thread(self) -> None:
        if self._weights.own.model.device.type == "cpu":
            use_threads_for(self._weights.own.num_parameters)

    def _become_ready(self) -> None:
        if self._state == "starting":
            self._state, self._reason = "ready", ""
        self._warm.set_result(None)

    def _become_failed(self, reason: str) -> None:
        if self._state != "stopped":
            self._state, self._reason = "failed", reason
        if not self._warm.done():
            self._warm.set_exception(NotReady(reason))
