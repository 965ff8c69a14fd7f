"""A reward model whose weights can be exchanged while it scores.

New weights are loaded beside the old ones, by the same settings, and warmed up; one assignment
then lets requests take them. Those that run or wait are finished by the old ones, which leave the
memory with the last of them. Each has an engine of its own, so that prompts kept by the one and
items in flight there are never used by the other. Until the old ones are gone both take memory.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from steerward.engine.observation import Observer
from steerward.engine.replacement import check_takes_over
from steerward.engine.served import Scored, ServedModel
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import CheckpointRefused, NotReady, Overloaded
from steerward.protocol.scoring import ModelCard, ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest

logger = logging.getLogger(__name__)

_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine, or a group of them, with what tells the metrics of it."""

    served: ServedModel
    observer: Observer


LoadWeights = Callable[[str, Callable[[RewardModel], None]], Loaded]
"""Loads a folder if the check, which gets the model, does not raise; not started, not shown."""


@dataclass(slots=True, eq=False)
class _Version:
    """Weights that requests take, or took. Its users are counted on the event loop only."""

    loaded: Loaded
    num_users: int = 0
    is_left: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def used(self) -> Iterator[ServedModel]:
        self.num_users += 1
        try:
            yield self.loaded.served
        finally:
            self.num_users -= 1
            if not self.num_users:
                self.is_left.set()

    async def wait_until_left(self) -> None:
        while self.num_users:
            self.is_left.clear()
            await self.is_left.wait()


class ExchangeableModel:
    """A served model that stays the same for its users while its weights change.

    Args:
        first: To begin with.
        load: Loads others.
    """

    def __init__(self, first: Loaded, *, load: LoadWeights) -> None:
        self._load = load
        self._version = _Version(first)
        self._created = first.served.card().created
        self._is_exchanging = False
        self._is_draining = False
        self._is_closed = False
        # All that has threads or memory: what is current, comes, or is finished.
        self._alive = [first.served]
        # Held by the event loop and by whoever closes this, for an instant each.
        self._changing = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> ServedModel:
        """What requests are given to now."""
        return self._version.loaded.served

    @property
    def name(self) -> str:
        """Under which it is served."""
        return self.current.name

    @property
    def model(self) -> RewardModel:
        """The reward model of now."""
        return self.current.model

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.current.is_ready

    @property
    def reason(self) -> str:
        """Why requests are not taken, or not on every device; empty if all is well."""
        return self.current.reason

    @property
    def weight_version(self) -> str:
        """Identity of the weights that requests take from now on."""
        return self.current.weight_version

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, with a guess for texts that are being tokenised."""
        return self.current.queued_tokens

    def card(self) -> ModelCard:
        """Return what clients may know of the model and its queue."""
        return self.current.card().model_copy(update={"created": self._created})

    def start(self) -> None:
        """Start to warm up."""
        self.current.start()

    async def wait_until_ready(self) -> None:
        """Return when it is warm, everywhere that it comes to that.

        Raises:
            NotReady: If it cannot be.
        """
        await self.current.wait_until_ready()

    @contextmanager
    def held(self) -> Iterator[ServedModel]:
        """Give the weights of now, which score until the end of the block whatever takes over."""
        with self._version.used() as served:
            yield served

    async def score(self, request: ScoreRequest) -> Scored:
        """Return the answer of a request, all of one version of the weights.

        Raises:
            SteerwardError: Why there is none.
        """
        with self._version.used() as served:
            return await served.score(request)

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Return the token ids of a request's items, as `score` would read them.

        Raises:
            SteerwardError: Why there are none.
        """
        with self._version.used() as served:
            return await served.tokenize(request)

    async def exchange(self, folder: str | Path) -> None:
        """Let requests from now on be scored by the weights of a folder; none fails of it.

        It goes on if whoever asked for it is cancelled.

        Raises:
            NotFound: If there is no such checkpoint.
            CheckpointRefused: If it does not load, does not warm up, or would change the shape of
                answers; the old weights go on.
            Overloaded: If the weights before still come or go: each takes the memory of a model.
            NotReady: If the server is shutting down.
        """
        self._check_open()
        if self._is_exchanging:
            raise Overloaded(
                f"the weights of {self.name} are being exchanged already, or requests that began "
                "before the last exchange still run; one at a time, try again later",
                retry_after_s=_RETRY_S,
            )
        self._is_exchanging = True
        await asyncio.shield(self._task(self._exchange(str(folder))))

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        self._is_draining = True
        self.current.begin_drain()

    def close(self) -> None:
        """Answer what still waits with `NotReady` and stop all threads."""
        with self._changing:
            self._is_closed = True
            alive = tuple(self._alive)
        with ThreadPoolExecutor(len(alive)) as pool:
            list(pool.map(lambda served: served.close(), alive))

    async def _exchange(self, folder: str) -> None:
        try:
            coming = await asyncio.to_thread(self._loaded, folder)
            try:
                await self._warm_up(coming.served, folder)
                old = self._take_over(coming)
            except BaseException:
                coming.observer.retire()
                await self._end(coming.served)
                raise
        except BaseException:
            self._is_exchanging = False
            raise
        logger.info("%s: weights %s take over", self.name, self.weight_version)
        self._task(self._finish(old))

    def _loaded(self, folder: str) -> Loaded:
        """Load weights that can take over, in the caller's thread."""
        served = self.model
        try:
            loaded = self._load(folder, lambda new: check_takes_over(new, served, folder=folder))
        except torch.OutOfMemoryError as error:
            raise CheckpointRefused(
                f"there is no room for the weights in {folder} beside those that are served, and "
                "both are needed for a while; restart the server with them instead"
            ) from error
        return loaded

    async def _warm_up(self, coming: ServedModel, folder: str) -> None:
        with self._changing:
            self._check_open()
            self._alive.append(coming)
        coming.start()
        try:
            await coming.wait_until_ready()
        except NotReady as error:
            raise self._not_warm(folder, error.message) from error
        self._check_open()
        if coming.reason:
            raise self._not_warm(folder, coming.reason)

    def _take_over(self, coming: Loaded) -> _Version:
        with self._changing:
            self._check_open()
            # One assignment: a request is scored by all of the old or all of the new.
            old, self._version = self._version, _Version(coming)
        old.loaded.observer.retire()
        coming.observer.show()
        return old

    async def _finish(self, old: _Version) -> None:
        """Close weights when the last request has left them."""
        try:
            await old.wait_until_left()
            await self._end(old.loaded.served)
        finally:
            self._is_exchanging = False

    async def _end(self, served: ServedModel) -> None:
        await asyncio.to_thread(served.close)
        with self._changing:
            if served in self._alive:
                self._alive.remove(served)

    def _check_open(self) -> None:
        if self._is_closed or self._is_draining:
            raise NotReady("the server is shutting down", retry_after_s=30.0)

    def _not_warm(self, folder: str, reason: str) -> CheckpointRefused:
        return CheckpointRefused(
            f"the weights in {folder} did not warm up: {reason}; those that are served go on"
        )

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Referenced here, for the event loop keeps no task alive.
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
