"""Our own server as the peer of a remote policy, on a real port, and a network that breaks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steerward.config import ServeConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.policy.generation import Generation, GenerationRequest, Piece, Policy, Prompt
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from steerward.protocol.conditioning import ConditioningRule
from steerward.server.app import create_app
from tests.policies import ARMORM_RULE
from tests.policy.conftest import ask_all, until

LONG = {"temperature": 0.0, "max_tokens": 200}
MEDIUM = {**LONG, "max_tokens": 50}
SHORT = {"temperature": 1.0, "max_tokens": 12, "seed": 3}
RULE = ConditioningRule.model_validate(ARMORM_RULE)


@dataclass(frozen=True, slots=True)
class Fault:
    """What a network does to a stream of events."""

    event: int
    """Number of the event that it meets."""
    becomes: Callable[[bytes], bytes]
    """What is carried in its place."""
    then: Literal["breaks", "ends", "goes on"]
    """What becomes of the connection: ended as if all had been sent, or not."""


class FaultyNetwork:
    """Carries requests to an app; the next completions meet the faults, one each, when they may."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: list[Fault] = []
        self.may_fail = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/completions") or not self.faults:
            await self._app(scope, receive, send)
            return
        fault, count = self.faults.pop(0), 0

        async def faulty_send(message: Message) -> None:
            nonlocal count
            body: bytes = message.get("body", b"")
            is_met = bool(body) and count == fault.event
            count += bool(body)
            if not is_met:
                await send(message)
                return
            await self.may_fail.wait()
            is_last = fault.then == "ends"
            await send({**message, "body": fault.becomes(body), "more_body": not is_last})
            if fault.then != "goes on":
                raise ConnectionResetError

        with suppress(ConnectionResetError):
            await self._app(scope, receive, faulty_send)


def nothing(_: bytes) -> bytes:
    return b""


def half(event: bytes) -> bytes:
    return event[: len(event) // 2]


def instead(text: str) -> Callable[[bytes], bytes]:
    return lambda _: f"data: {text}\n\n".encode("latin-1")


@dataclass
class Peer:
    """A server that runs."""

    url: str
    policy: LocalPolicy
    network: FaultyNetwork

    @property
    def is_idle(self) -> bool:
        card = self.policy.card()
        return card.running == card.waiting == 0


@asynccontextmanager
async def listening(app: ASGIApp, *, port: int = 0) -> AsyncIterator[str]:
    """An app on a real port; gives its address."""
    config = uvicorn.Config(app, port=port, log_config=None, lifespan="off")
    config.timeout_graceful_shutdown = 5
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    (listener,) = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def app_of(*policies: Policy, engines: Mapping[str, Engine] | None = None, **config: Any) -> Any:
    settings = ServeConfig(device="cpu", policy=[], **config)
    by_name = {policy.name: policy for policy in policies}
    return create_app(settings, engines or {}, by_name, Metrics())


@asynccontextmanager
async def peer_of(policy: LocalPolicy, *, port: int = 0, **config: Any) -> AsyncIterator[Peer]:
    network = FaultyNetwork(app_of(policy, **config))
    async with listening(network, port=port) as url:
        yield Peer(url, policy, network)


@asynccontextmanager
async def remote_of(url: str, **options: Any) -> AsyncIterator[RemotePolicy]:
    """A policy on another server, as soon as it is ready; afterwards nothing may be left of it."""
    policy = RemotePolicy(url, **{"name": "far", **options})
    policy.start()
    try:
        async with asyncio.timeout(10):
            await policy.wait_until_ready()
        yield policy
        await until(lambda: not running_reads())
        assert (policy.card().running, policy.card().waiting) == (0, 0)
        assert not open_connections(policy)
    finally:
        await asyncio.to_thread(policy.close)


def running_reads() -> list[Any]:
    names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    return [name for name in names if name == "RemoteGeneration._run"]


def open_connections(policy: RemotePolicy) -> list[Any]:
    """Return the connections that still carry an answer."""
    pool: Any = getattr(policy._http._transport, "_pool", None)
    found = [] if pool is None else pool.connections
    return [one for one in found if not (one.is_idle() or one.is_closed())]


@contextmanager
def held(policy: LocalPolicy, *, after: int = 0) -> Iterator[threading.Event]:
    """Keep a policy's device after some passes; gives what is set when it is there."""
    release, is_held, passes = threading.Event(), threading.Event(), 0

    def hold(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes > after:
            is_held.set()
            release.wait(30.0)

    hook = policy._weights.own.model.register_forward_pre_hook(hold)
    try:
        yield is_held
    finally:
        release.set()
        hook.remove()


def ask_text(text: str, num: int = 1, **sampling: Any) -> GenerationRequest:
    from_chat = ask_all([""] * num, **sampling)
    prompts = [Prompt(text=text)] * num
    return GenerationRequest(prompts, from_chat.sampling, from_chat.deadline)


async def read_into(found: list[Piece], generation: Generation) -> None:
    async for piece in generation:
        found.append(piece)


@dataclass
class Drawn:
    """What came of a request, by sample."""

    texts: list[str]
    reasons: list[str | None]
    logprobs: list[list[Any]]
    num_tokens: int
    prompt_tokens: int
    weight_version: str
    system_fingerprint: str


async def drawn(policy: Policy, request: GenerationRequest) -> Drawn:
    generation = await policy.begin(request)
    found: list[Piece] = []
    await read_into(found, generation)
    by_sample = [
        [piece for piece in found if piece.index == index] for index in range(len(request.prompts))
    ]
    return Drawn(
        texts=["".join(piece.text for piece in own) for own in by_sample],
        reasons=[own[-1].finish_reason for own in by_sample],
        logprobs=[[one for piece in own for one in piece.logprobs] for own in by_sample],
        num_tokens=sum(piece.num_tokens for piece in found),
        prompt_tokens=generation.prompt_tokens,
        weight_version=generation.weight_version,
        system_fingerprint=generation.system_fingerprint,
    )


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30.0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Answering(httpx.AsyncBaseTransport):
    """The network, where something else than the server answers requests for completions."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._network = httpx.AsyncHTTPTransport()
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/completions"):
            return self._answer(request)
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()
