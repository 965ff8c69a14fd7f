"""A policy on another machine: any OpenAI-compatible server (vLLM, SGLang, ours) by its URL.

Prompts and completions pass through and are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

import httpx

from steerward.policy.generation import Generation, GenerationRequest
from steerward.policy.places import Places
from steerward.policy.remote_generation import RemoteGeneration, StreamRequest
from steerward.policy.remote_wire import (
    RemoteModel,
    completions_body,
    completions_path,
    connection_error,
    error_of_answer,
    group_prompts,
    key_headers,
    read_models,
    server_address,
)
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.errors import (
    DeadlineExceeded,
    NotFound,
    NotReady,
    SteerwardError,
    brief,
)
from steerward.protocol.policies import PolicyCard

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_LIST_TIMEOUT_S = 10.0
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_CLOSE_TIMEOUT_S = 10.0
_UNKNOWN = "remote"
"""Weight version and dtype of a server that tells none."""

_State = Literal["starting", "ready", "draining", "stopped"]


class RemotePolicy:
    """Draws completions from another server.

    Used from the event loop in which `start` is called; `close` may come from any thread.

    Args:
        url: Of the server, with or without /v1 at its end.
        name: Under which the policy is served here.
        model: Its name there; None: the only one that the server lists.
        api_key: Sent as a bearer key.
        rule: How it reads a direction, if it was trained to.
        variants: Names of its variants, there as here.
        max_running: Completions to ask for at once; further ones wait here.
        max_waiting: Completions that may wait; more are refused.
        transport: Of httpx, to be used instead of the network.

    Raises:
        InvalidRequest: If the URL is none, or no header can carry the key.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        model: str | None = None,
        api_key: str | None = None,
        rule: ConditioningRule | None = None,
        variants: Sequence[str] = (),
        max_running: int = 256,
        max_waiting: int = 1024,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        address = server_address(url)
        self.name = name
        self.variants: Sequence[str] = tuple(variants)
        self.rule = rule
        self._wanted = model
        self._model: RemoteModel | None = None
        self._weight_version = _UNKNOWN
        # What is told of the address, by us or in httpx's log, must not hold a password.
        public = address.copy_with(userinfo=b"")
        self._server = str(public).rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=public,
            headers=key_headers(api_key),
            auth=_password(address) if api_key is None else None,
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            # `Places` bounds them; a connection that waits for another would look like a hang.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=transport,
        )
        self._places = Places(max_running=max_running, max_waiting=max_waiting)
        self._generations: set[RemoteGeneration] = set()
        self._state: _State = "starting"
        self._reason = f"the server {self._server} was not asked for its models yet"
        self._warm: Future[None] = Future()
        self._created = int(time.time())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        # The loop itself keeps no task alive.
        self._connecting: asyncio.Task[None] | None = None
        self._shutting: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self._state == "ready"

    @property
    def reason(self) -> str:
        """Why requests are not taken; empty if they are."""
        return "" if self.is_ready else self._reason

    def card(self, variant: str | None = None) -> PolicyCard:
        """Return what clients may know of it, or of one of its variants."""
        return PolicyCard(
            id=variant or self.name,
            created=self._created,
            parent=self.name if variant else None,
            conditioning=self.rule,
            max_input_tokens=self._model.max_input_tokens if self._model else None,
            weight_version=self._weight_version,
            dtype=_UNKNOWN,
            device=self._server,
            num_parameters=None,
            running=self._places.running,
            waiting=self._places.waiting,
        )

    def start(self) -> None:
        """Ask the server for its models, again and again until it answers."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._connecting = self._loop.create_task(self._connect())

    async def wait_until_ready(self) -> None:
        """Return when the server has answered.

        Raises:
            NotReady: If the policy was closed before.
        """
        # A caller that gives up must not cancel what `_connect` will set.
        await asyncio.shield(asyncio.wrap_future(self._warm))

    async def begin(self, request: GenerationRequest) -> Generation:
        """Send a request, and return when every stream of its answer has begun.

        Raises:
            SteerwardError: What the server refused it with, `Overloaded` if too many wait here,
                `NotReady` if it cannot be reached, `NotFound`, `DeadlineExceeded`.
        """
        model = self._model_for(request.variant)
        loop_deadline = asyncio.get_running_loop().time() + request.deadline - time.perf_counter()
        num = len(request.prompts)
        try:
            async with asyncio.timeout_at(loop_deadline):
                await self._places.take(num)
        except TimeoutError:
            raise DeadlineExceeded(
                "the completions found no place in time; ask for fewer at once, or allow more "
                "time (timeout_s)"
            ) from None
        if self._state == "stopped":
            self._places.give_back(num)
            raise NotReady(self._reason)
        generation = RemoteGeneration(
            self._http,
            server=self._server,
            streams=_streams(request, model),
            loop_deadline=loop_deadline,
            weight_version=self._weight_version,
            on_end=lambda ended: self._forget(ended, num),
        )
        self._generations.add(generation)
        try:
            await generation.opened()
        except BaseException:
            await generation.aclose()
            raise
        if request.variant is None:
            self._weight_version = generation.weight_version
        return generation

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        if self._state in ("starting", "ready"):
            self._set_state("draining", "the server is shutting down")

    def close(self) -> None:
        """End what still runs with `NotReady` and close the connections.

        Returns when that is done, but from the event loop's own thread: there it is done next.
        """
        self._set_state("stopped", "the server has stopped")
        if not self._warm.done():
            self._warm.set_exception(NotReady(self._reason))
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        if threading.get_ident() == self._thread:
            self._shutting = loop.create_task(self._shut())
            return
        try:
            asyncio.run_coroutine_threadsafe(self._shut(), loop).result(_CLOSE_TIMEOUT_S)
        except TimeoutError:
            logger.warning("connections of policy %s are still open", self.name)

    def _model_for(self, variant: str | None) -> RemoteModel:
        model = self._model
        if not self.is_ready or model is None:
            raise NotReady(self._reason, retry_after_s=5.0 if self._state == "starting" else 30.0)
        if variant is None:
            return model
        if variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise NotFound(
                f"the policy {self.name!r} has no variant {brief(variant)!r}; known: {known}",
                param="model",
            )
        return RemoteModel(variant, model.max_input_tokens, is_steerward=model.is_steerward)

    async def _connect(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                model = await self._ask()
            except SteerwardError as error:
                if error.message != self._reason and self._state == "starting":
                    logger.warning("policy %s is not ready: %s", self.name, error.message)
                    self._reason = error.message
            else:
                self._become_ready(model)
                return
            # Jitter keeps many servers from coming back at the same moment.
            await asyncio.sleep(retry_s * random.uniform(0.75, 1.0))
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

    async def _ask(self) -> RemoteModel:
        try:
            response = await self._http.get("/v1/models", timeout=_LIST_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise connection_error(self._server, error) from error
        if not response.is_success:
            raise error_of_answer(response.status_code, response.content, server=self._server)
        try:
            return read_models(response.content, wanted=self._wanted)
        except NotReady as error:
            raise NotReady(f"the server {self._server}: {error.message}") from error

    def _become_ready(self, model: RemoteModel) -> None:
        self._model = model
        self._weight_version = model.weight_version or _UNKNOWN
        if self._state == "starting":
            self._set_state("ready", "")
            logger.info("policy %s is %s at %s", self.name, model.name, self._server)
        if not self._warm.done():
            self._warm.set_result(None)

    def _forget(self, generation: RemoteGeneration, num: int) -> None:
        self._generations.discard(generation)
        self._places.give_back(num)

    async def _shut(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        error = NotReady(self._reason, retry_after_s=1.0)
        await asyncio.gather(*(generation.fail(error) for generation in tuple(self._generations)))
        await self._http.aclose()

    def _set_state(self, state: _State, reason: str) -> None:
        self._state, self._reason = state, reason


def _streams(request: GenerationRequest, model: RemoteModel) -> list[StreamRequest]:
    return [
        StreamRequest(
            completions_path(group.prompt),
            completions_body(
                group, request.sampling, model=model.name, is_steerward=model.is_steerward
            ),
            group.samples,
        )
        for group in group_prompts(request.prompts)
    ]


def _password(address: httpx.URL) -> httpx.BasicAuth | None:
    return httpx.BasicAuth(address.username, address.password) if address.userinfo else None
