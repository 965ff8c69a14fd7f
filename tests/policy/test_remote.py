"""A policy on another server: ours as the peer, on a real port, and a network that breaks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steerward.config import EngineConfig, ServeConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.reward_model import RewardModel
from steerward.policy.generation import Generation, GenerationRequest, Piece, Policy, Prompt
from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from steerward.policy.steering import SteeredPolicy, SteeringRequest
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.errors import (
    DeadlineExceeded,
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    SteerwardError,
)
from steerward.server.app import create_app
from steerward.server.rewards import EngineRewards
from tests.policies import ARMORM_RULE, save_policy
from tests.policy.conftest import ask, ask_all, make_policy, started, texts, until
from tests.policy.local.test_adapters import save_adapter

pytestmark = pytest.mark.anyio

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


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny", rule=ARMORM_RULE)


@pytest.fixture
async def local(clean_environment: None, checkpoint: LocalCheckpoint) -> AsyncIterator[LocalPolicy]:
    policy = await started(make_policy(checkpoint))
    yield policy
    policy.close()


@pytest.fixture
async def peer(local: LocalPolicy) -> AsyncIterator[Peer]:
    async with peer_of(local) as found:
        yield found


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


@pytest.fixture
async def remote(peer: Peer) -> AsyncIterator[RemotePolicy]:
    async with remote_of(peer.url) as policy:
        yield policy
        await until(lambda: peer.is_idle)


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


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: ask("Hello", **SHORT),
        lambda: ask_all(["Hello"] * 4, **SHORT),
        lambda: ask_all(["Hello"] * 2, **{**SHORT, "top_p": 0.8, "temperature": 1.5}),
        lambda: ask_all(["Hello"], **LONG),
        lambda: ask_all(["Hello"], **{**LONG, "presence_penalty": 1.5, "frequency_penalty": -0.5}),
        lambda: ask_text("Tell me", 3, **SHORT),
        lambda: ask_all(["Hello"] * 2, **{**SHORT, "seed": 2**63 - 1}),
    ],
    ids=["one", "four", "top_p", "greedy", "penalties", "text", "largest seed"],
)
async def test_one_seed_draws_the_same_there_as_here(
    peer: Peer, remote: RemotePolicy, request_of: Callable[[], GenerationRequest]
) -> None:
    far, near = [await drawn(policy, request_of()) for policy in (remote, peer.policy)]
    assert far == near
    assert far.num_tokens > 0
    assert any(far.texts)


async def test_length_is_the_other_servers_where_none_is_asked_for(
    peer: Peer, remote: RemotePolicy
) -> None:
    far, near = [await drawn(p, ask("Hello", temperature=0.0)) for p in (remote, peer.policy)]
    assert far == near


async def test_distinct_prompts_are_drawn_each_from_a_stream_of_its_own(
    peer: Peer, remote: RemotePolicy
) -> None:
    request = ask_all(["Hello", "Tell me about rainbows.", "Hello"], **SHORT)
    first, again = [await drawn(remote, request) for _ in range(2)]
    assert first == again
    assert first.prompt_tokens == (await drawn(peer.policy, request)).prompt_tokens
    assert len(set(first.texts)) == 3
    greedy = ask_all(["Hello", "Tell me about rainbows."], temperature=0.0, max_tokens=20)
    far, near = [await drawn(policy, greedy) for policy in (remote, peer.policy)]
    assert far.texts == near.texts


@pytest.mark.parametrize("top", [0, 3])
async def test_logprobs_are_those_of_the_other_server(
    peer: Peer, remote: RemotePolicy, top: int
) -> None:
    request = ask_all(["Hello"] * 2, **SHORT, top_logprobs=top)
    far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
    assert far == near
    assert sum(map(len, far.logprobs)) == far.num_tokens
    assert {len(one.top) for own in far.logprobs for one in own} == {top}


async def test_logprobs_of_a_text_are_there_too(peer: Peer, remote: RemotePolicy) -> None:
    request = ask_text("Tell me", **SHORT, top_logprobs=2)
    far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
    assert (far.texts, far.num_tokens) == (near.texts, near.num_tokens)
    found, expected = [
        [(one.chosen.token, one.chosen.logprob) for one in drawn.logprobs[0]]
        for drawn in (far, near)
    ]
    assert found == expected


async def test_stop_text_ends_the_completion_before_it(peer: Peer, remote: RemotePolicy) -> None:
    (whole,) = await texts(peer.policy, ask("Tell me", **LONG))
    stop = whole[len(whole) // 2 :][:3]
    found = await drawn(remote, ask("Tell me", **LONG, stop=(stop,)))
    assert found.texts == [whole[: whole.index(stop)]]
    assert found.reasons == ["stop"]


async def test_pieces_come_while_the_rest_is_drawn(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        generation = await remote.begin(ask("Hello", **LONG))
        reading = aiter(generation)
        first = await asyncio.wait_for(anext(reading), 5.0)
        assert first.finish_reason is None
        assert peer.policy.card().running == 1
        await generation.aclose()


async def test_card_tells_of_the_other_server_and_follows_its_weights(
    peer: Peer, remote: RemotePolicy, tmp_path: Path
) -> None:
    before, there = remote.card(), peer.policy.card()
    assert (before.id, before.device) == ("far", peer.url)
    assert before.weight_version == there.weight_version
    assert before.max_input_tokens == there.max_input_tokens
    other = save_policy(tmp_path / "other", seed=1)
    version = await asyncio.to_thread(peer.policy.swap_weights, other)
    found = await drawn(remote, ask("Hello", **LONG))
    assert found == await drawn(peer.policy, ask("Hello", **LONG))
    assert version == found.weight_version == remote.card().weight_version != there.weight_version


async def test_adapters_are_asked_for_by_their_names(
    peer: Peer, policy_folder: Path, tmp_path: Path
) -> None:
    folder = save_adapter(policy_folder, tmp_path / "kind", seed=1)
    await asyncio.to_thread(peer.policy.load_adapter, "kind", folder)
    async with remote_of(peer.url, adapters=["kind", "dropped"]) as remote:
        request = ask_all(["Hello"], adapter="kind", **LONG)
        far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
        assert far == near
        assert far.texts != await texts(remote, ask("Hello", **LONG))
        assert remote.card("kind").parent == "far"
        with pytest.raises(NotFound, match="no adapter 'absent'; known: kind, dropped"):
            await remote.begin(ask_all(["Hello"], adapter="absent"))
        with pytest.raises(NotFound, match="dropped"):
            await remote.begin(ask_all(["Hello"], adapter="dropped"))


@pytest.fixture
async def engine(armorm: RewardModel) -> AsyncIterator[Engine]:
    settings = EngineConfig(device="cpu", prefix_cache_bytes=0)
    engine = Engine(armorm, name="armorm", config=settings, metrics=Metrics())
    engine.start()
    await engine.wait_until_ready()
    yield engine
    engine.close()


async def steered_by(
    policy: Policy, rewards: EngineRewards, **fields: Any
) -> tuple[list[tuple[int, str, Any]], tuple[int, int], Any]:
    asked = ask("Hello", **SHORT)
    generation = await SteeredPolicy(policy, rewards).begin(
        SteeringRequest(asked.prompts[0], asked.sampling, asked.deadline, **fields)
    )
    texts, rewards_by_index = [""] * fields["n"], {}
    async for part in generation:
        texts[part.index] += part.text
        if part.reward is not None:
            rewards_by_index[part.index] = part.reward
    choices = [(index, text, rewards_by_index[index]) for index, text in enumerate(texts)]
    return (
        choices,
        (generation.prompt_tokens, generation.completion_tokens),
        generation.report,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 3, "steering": "prompt"},
        {"n": 2, "steering": "best_of", "best_of": 6},
    ],
    ids=["prompt", "best_of"],
)
async def test_steering_does_the_same_with_a_policy_elsewhere(
    peer: Peer, engine: Engine, fields: dict[str, Any]
) -> None:
    rewards = EngineRewards(engine)
    async with remote_of(peer.url, rule=RULE) as remote:
        far, near = [
            await steered_by(policy, rewards, direction=RULE.at_angle(-20.0), **fields)
            for policy in (remote, peer.policy)
        ]
    assert far == near


async def test_neighbours_are_asked_for_side_by_side_and_chosen_among(
    peer: Peer, engine: Engine
) -> None:
    rewards, direction = EngineRewards(engine), RULE.at_angle(-20.0)
    fields: dict[str, Any] = {"steering": "neighbours", "direction": direction}
    async with remote_of(peer.url, rule=RULE) as remote:
        (best,), tokens, report = await steered_by(remote, rewards, n=1, **fields)
        all_five, same_tokens, _ = await steered_by(remote, rewards, n=5, **fields)
    assert best == all_five[0]
    assert tokens == same_tokens
    assert report.samples == 5
    scores = [reward.direction_score for _, _, reward in all_five]
    assert scores == sorted(scores, reverse=True)


async def test_our_server_steers_with_a_policy_that_is_elsewhere(
    peer: Peer, engine: Engine
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "direction": {"helpfulness": 2.0, "verbosity": -1.0},
        "steering": "best_of",
        "best_of": 5,
        "max_completion_tokens": 12,
        "seed": 3,
    }
    engines = {"armorm": engine}
    async with remote_of(peer.url, rule=RULE) as remote:
        found = []
        for policy in (remote, peer.policy):
            async with client_of(app_of(policy, engines=engines)) as client:
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                found.append(answer.json())
    far, near = found
    for part in ("choices", "usage", "steering", "system_fingerprint"):
        assert far[part] == near[part]
    assert far["model"] == "far"
    assert far["steering"]["samples"] == 5


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30.0)


async def test_right_key_is_let_in(local: LocalPolicy) -> None:
    async with (
        peer_of(local, api_key=["ключ", "secret"]) as peer,
        remote_of(f"{peer.url}/v1/", api_key="ключ") as remote,
    ):
        assert (await drawn(remote, ask("Hello", **SHORT))).num_tokens > 0


@pytest.mark.parametrize("key", [None, "guessed"])
async def test_wrong_key_leaves_the_policy_not_ready_and_is_told(
    local: LocalPolicy, key: str | None
) -> None:
    async with peer_of(local, api_key=["secret"]) as peer:
        policy = RemotePolicy(peer.url, name="far", api_key=key)
        policy.start()
        await until(lambda: "refused the API key of this server" in policy.reason)
        assert not policy.is_ready
        assert "guessed" not in policy.reason
        with pytest.raises(NotReady, match="refused the API key"):
            await policy.begin(ask())
        await asyncio.to_thread(policy.close)


async def test_key_that_is_no_longer_taken_is_no_fault_of_the_caller(local: LocalPolicy) -> None:
    port = free_port()
    async with peer_of(local, port=port, api_key=["old"]) as peer:
        policy = RemotePolicy(peer.url, name="far", api_key="old")
        policy.start()
        await policy.wait_until_ready()
    async with peer_of(local, port=port, api_key=["new"]):
        with pytest.raises(NotReady, match="refused the API key of this server"):
            await policy.begin(ask())
    assert policy.card().running == 0
    await asyncio.to_thread(policy.close)


async def test_unknown_model_is_not_found(peer: Peer) -> None:
    """Servers may serve what they do not list, so this is known only when it is asked for."""
    async with remote_of(peer.url, model="absent") as remote:
        with pytest.raises(NotFound, match="absent"):
            await remote.begin(ask())


async def test_one_of_several_models_has_to_be_named(
    local: LocalPolicy, policy_folder: Path
) -> None:
    other = make_policy(load_policy(str(policy_folder), device="cpu"), name="other")
    await started(other)
    async with listening(app_of(local, other)) as url:
        policy = RemotePolicy(url, name="far")
        policy.start()
        await until(lambda: "name the one to use" in policy.reason)
        assert "2 policies: tiny, other" in policy.reason
        await asyncio.to_thread(policy.close)
        with pytest.raises(NotReady, match="has stopped"):
            await policy.wait_until_ready()
        async with remote_of(url, model="other") as remote:
            assert await texts(remote, ask("Hello", **SHORT))
    other.close()


async def test_refusals_of_the_other_server_are_errors_of_the_same_kind(
    peer: Peer, remote: RemotePolicy
) -> None:
    with pytest.raises(InputTooLong, match="reads 256"):
        await remote.begin(ask("word " * 300, max_tokens=1))
    with pytest.raises(InvalidRequest, match="temperature"):
        await remote.begin(ask("Hello", temperature=3.0))
    with held(peer.policy) as is_held:
        running = asyncio.create_task(drawn(remote, ask_all(["Hello"] * 64, **SHORT)))
        await until(is_held.is_set)
        with pytest.raises(Overloaded, match="wait already") as caught:
            await remote.begin(ask_all(["Hello"] * 64, **SHORT))
        assert caught.value.retry_after_s
    assert (await running).num_tokens > 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def test_dead_server_is_told_and_found_again_when_it_lives(local: LocalPolicy) -> None:
    port = free_port()
    remote = RemotePolicy(f"http://127.0.0.1:{port}", name="far")
    remote.start()
    await until(lambda: "is the server running?" in remote.reason)
    async with client_of(app_of(remote)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert f"127.0.0.1:{port}" in answer.json()["error"]["message"]
        with pytest.raises(NotReady, match="is the server running") as caught:
            await remote.begin(ask())
        assert caught.value.retry_after_s
        async with peer_of(local, port=port):
            await asyncio.wait_for(remote.wait_until_ready(), 10.0)
            assert (await client.get("/readyz")).status_code == 200
            assert await texts(remote, ask("Hello", **SHORT))
    await asyncio.to_thread(remote.close)


async def test_server_that_dies_later_is_an_error_until_it_is_back(local: LocalPolicy) -> None:
    port = free_port()
    async with peer_of(local, port=port) as peer:
        remote = RemotePolicy(peer.url, name="far")
        remote.start()
        await remote.wait_until_ready()
        assert await texts(remote, ask("Hello", **SHORT))
    for _ in range(2):
        with pytest.raises(NotReady, match="is the server running") as caught:
            await remote.begin(ask())
        assert caught.value.retry_after_s
    assert remote.card().running == 0
    async with peer_of(local, port=port):
        assert await texts(remote, ask("Hello", **SHORT))
    await asyncio.to_thread(remote.close)


BUSY = '{"error": {"message": "full", "code": "overloaded", "type": "rate_limit_error"}}'


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (Fault(4, nothing, "breaks"), NotReady, "connection to .* failed"),
        (Fault(4, half, "breaks"), NotReady, "connection to .* failed"),
        (Fault(4, nothing, "ends"), EngineFailure, "1 of 1 completions unfinished"),
        (Fault(4, half, "ends"), EngineFailure, "1 of 1 completions unfinished"),
        (Fault(4, half, "goes on"), EngineFailure, "not JSON"),
        (Fault(4, instead('{"choices": ['), "goes on"), EngineFailure, "not JSON"),
        (Fault(4, instead("[]"), "goes on"), EngineFailure, "an event is of type list"),
        (Fault(4, instead('{"choices": "\xff"}'), "goes on"), EngineFailure, "not UTF-8"),
        (Fault(4, instead(BUSY), "ends"), Overloaded, "full"),
        (Fault(4, instead('{"error": "out of memory"}'), "ends"), EngineFailure, "out of memory"),
    ],
    ids=[
        "connection dropped",
        "dropped within an event",
        "ended too early",
        "ended within an event",
        "half an event",
        "malformed JSON",
        "another shape",
        "not UTF-8",
        "typed error",
        "foreign error",
    ],
)
async def test_broken_stream_ends_in_a_typed_error_and_others_go_on(
    peer: Peer, remote: RemotePolicy, fault: Fault, expected: type[SteerwardError], message: str
) -> None:
    (whole,) = await texts(peer.policy, ask("Hello", **MEDIUM))
    other_request = ask_all(["Tell me"] * 2, **{**MEDIUM, "temperature": 1.0, "seed": 4})
    expected_of_others = await texts(peer.policy, other_request)
    with held(peer.policy) as is_held:
        other = asyncio.create_task(texts(remote, other_request))
        await until(is_held.is_set)
    peer.network.faults.append(fault)
    generation = await remote.begin(ask("Hello", **MEDIUM))
    peer.network.may_fail.set()
    found: list[Piece] = []
    with pytest.raises(expected, match=message):
        await read_into(found, generation)
    await generation.aclose()
    assert found
    assert whole.startswith("".join(piece.text for piece in found))
    assert all(piece.finish_reason is None for piece in found)
    assert await other == expected_of_others
    assert await texts(remote, ask("Hello", **MEDIUM)) == [whole]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(0, nothing, "breaks"), NotReady),
        (Fault(0, nothing, "ends"), EngineFailure),
        (Fault(0, half, "breaks"), NotReady),
        (Fault(0, instead(BUSY), "ends"), Overloaded),
    ],
    ids=["dropped", "empty", "half", "error"],
)
async def test_stream_that_breaks_at_once_is_refused_before_it_begins(
    peer: Peer, remote: RemotePolicy, fault: Fault, expected: type[SteerwardError]
) -> None:
    peer.network.faults.append(fault)
    peer.network.may_fail.set()
    with pytest.raises(expected):
        await remote.begin(ask("Hello", **LONG))
    assert remote.card().running == 0
    assert await texts(remote, ask("Hello", **SHORT))


async def test_one_broken_stream_of_several_ends_them_all(peer: Peer, remote: RemotePolicy) -> None:
    peer.network.faults.append(Fault(3, nothing, "breaks"))
    generation = await remote.begin(ask_all(["Hello", "Tell me", "Go on"], **LONG))
    peer.network.may_fail.set()
    with pytest.raises(NotReady, match="connection"):
        await read_into([], generation)
    # Nobody has closed it yet.
    await until(lambda: peer.is_idle)
    assert remote.card().running == 0
    await generation.aclose()


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


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("no route", request=request)


def page(status: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, html="<h1>Oh</h1>" * 20_000, headers=headers)


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (unreachable, NotReady, "ConnectTimeout"),
        (page(200), EngineFailure, "'text/html.*' and not with a stream of events"),
        (page(502), NotReady, "status 502"),
        (page(500), EngineFailure, "status 500"),
        (page(429, **{"retry-after": "7"}), Overloaded, "status 429"),
    ],
    ids=["unreachable", "page", "bad gateway", "failure", "rate limit"],
)
async def test_answer_of_something_else_is_a_typed_error(
    peer: Peer,
    answer: Callable[[httpx.Request], httpx.Response],
    expected: type[SteerwardError],
    message: str,
) -> None:
    async with remote_of(peer.url, transport=Answering(answer)) as remote:
        with pytest.raises(expected, match=message) as caught:
            await remote.begin(ask())
    assert len(str(caught.value)) < 500
    if expected is Overloaded:
        assert caught.value.retry_after_s == 7.0


async def test_deadline_ends_the_stream_and_what_the_other_server_draws(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy, after=3) as is_held:
        generation = await remote.begin(ask("Hello", timeout_s=0.5, **LONG))
        await until(is_held.is_set)
        found: list[Piece] = []
        with pytest.raises(DeadlineExceeded, match="allow more time"):
            await read_into(found, generation)
    assert found
    await until(lambda: peer.is_idle)
    assert remote.card().running == 0


async def test_deadline_before_the_first_event_is_an_error_of_begin(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy):
        with pytest.raises(DeadlineExceeded, match="not done in time"):
            await remote.begin(ask("Hello", timeout_s=0.2, **LONG))
        assert remote.card().running == 0


async def test_deadline_holds_where_nobody_reads(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        generation = await remote.begin(ask("Hello", timeout_s=0.5, **LONG))
        await until(lambda: remote.card().running == 0)
    with pytest.raises(DeadlineExceeded):
        await read_into([], generation)


async def test_deadline_of_the_other_server_is_one_here(local: LocalPolicy) -> None:
    async with peer_of(local, generation_timeout_s=0.5) as peer, remote_of(peer.url) as remote:
        with held(local, after=3):
            generation = await remote.begin(ask("Hello", **LONG))
            with pytest.raises(DeadlineExceeded, match="not done after 0.[45]"):
                await read_into([], generation)


async def test_other_server_that_stops_ends_its_streams_with_not_ready(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy, after=3) as is_held:
        generation = await remote.begin(ask("Hello", **LONG))
        await until(is_held.is_set)
        closing = asyncio.create_task(asyncio.to_thread(peer.policy.close))
        await until(lambda: not peer.policy.is_ready)
    with pytest.raises(NotReady, match="has stopped"):
        await read_into([], generation)
    await closing


async def closed(generation: Generation, reading: asyncio.Task[Any]) -> None:
    """A reader in another task comes to its end."""
    await generation.aclose()
    await asyncio.wait_for(reading, 5.0)


async def cancelled(generation: Generation, reading: asyncio.Task[Any]) -> None:
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await generation.aclose()


@pytest.mark.parametrize("close", [closed, cancelled])
@pytest.mark.parametrize("prompts", [["Hello"] * 8, [f"{i}" for i in range(8)]], ids=["one", "8"])
async def test_closing_frees_the_places_there_and_here_at_once(
    peer: Peer,
    remote: RemotePolicy,
    prompts: list[str],
    close: Callable[[Generation, asyncio.Task[Any]], Awaitable[None]],
) -> None:
    generation = await remote.begin(ask_all(prompts, **LONG))
    with held(peer.policy) as is_held:
        reading = asyncio.create_task(read_into([], generation))
        await until(is_held.is_set)
        assert peer.policy.card().running > 0
        await close(generation, reading)
        assert remote.card().running == 0
        await generation.aclose()
    await until(lambda: peer.is_idle)
    # Over HTTP too: it is what whoever runs the other server sees.
    async with httpx.AsyncClient(base_url=peer.url) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
    assert (card["running"], card["waiting"]) == (0, 0)


async def test_caller_that_goes_before_the_first_event_leaves_nothing(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy) as is_held:
        beginning = asyncio.create_task(remote.begin(ask_all(["Hello"] * 4, **LONG)))
        await until(is_held.is_set)
        assert remote.card().running == 4
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert remote.card().running == 0
    await until(lambda: peer.is_idle)


async def test_slow_reader_holds_up_nobody_and_loses_nothing(
    peer: Peer, remote: RemotePolicy
) -> None:
    """More pieces than are kept unread wait at the other server, or in the network."""
    request = ask_all(["Hello"] * 4, **{**LONG, "top_logprobs": 5})
    expected = await drawn(peer.policy, request)
    slow = await remote.begin(request)
    for i in range(5):
        assert await texts(remote, ask(f"{i}", **SHORT))
    await asyncio.sleep(0.3)
    found: list[Piece] = []
    await read_into(found, slow)
    for index, text in enumerate(expected.texts):
        assert "".join(piece.text for piece in found if piece.index == index) == text
    assert sum(piece.num_tokens for piece in found) == expected.num_tokens > 256


async def test_completions_over_the_places_wait_here_and_too_many_are_refused(
    peer: Peer,
) -> None:
    async with remote_of(peer.url, max_running=2, max_waiting=3) as remote:
        with held(peer.policy, after=3) as is_held:
            first = await remote.begin(ask_all(["Hello"] * 2, **LONG))
            await until(is_held.is_set)
            behind = asyncio.create_task(texts(remote, ask_all(["Tell me"] * 2, **SHORT)))
            await until(lambda: remote.card().waiting == 2)
            with pytest.raises(Overloaded, match="2 completions wait already.*limit 3"):
                await remote.begin(ask_all(["Hello"] * 2, **SHORT))
            with pytest.raises(DeadlineExceeded, match="found no place in time"):
                await remote.begin(ask("Hello", timeout_s=0.05, **SHORT))
            assert peer.policy.card().running == 2
            await first.aclose()
        assert len(await asyncio.wait_for(behind, 5.0)) == 2


async def test_drain_finishes_what_runs_and_takes_no_more(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        running = await remote.begin(ask("Hello", **LONG))
        remote.begin_drain()
        assert (remote.is_ready, remote.reason) == (False, "the server is shutting down")
        with pytest.raises(NotReady, match="shutting down"):
            await remote.begin(ask())
    found: list[Piece] = []
    await read_into(found, running)
    assert found[-1].finish_reason is not None


async def close_in_a_thread(policy: RemotePolicy) -> None:
    await asyncio.to_thread(policy.close)


async def close_on_the_loop(policy: RemotePolicy) -> None:
    policy.close()


@pytest.mark.parametrize("close", [close_in_a_thread, close_on_the_loop])
async def test_closing_the_policy_ends_what_runs_and_what_waits_with_not_ready(
    peer: Peer, close: Callable[[RemotePolicy], Awaitable[None]]
) -> None:
    async with remote_of(peer.url, max_running=1) as remote:
        with held(peer.policy, after=3) as is_held:
            running = asyncio.create_task(drawn(remote, ask("Hello", **LONG)))
            await until(is_held.is_set)
            waiting = asyncio.create_task(drawn(remote, ask("Hello", **LONG)))
            await until(lambda: remote.card().waiting == 1)
            await close(remote)
            for task in (running, waiting):
                with pytest.raises(NotReady, match="has stopped"):
                    await asyncio.wait_for(task, 5.0)
        with pytest.raises(NotReady, match="has stopped"):
            await remote.begin(ask())
    await until(lambda: peer.is_idle)
    remote.close()


async def test_policy_that_was_never_started_can_be_closed() -> None:
    policy = RemotePolicy(f"http://127.0.0.1:{free_port()}", name="far")
    assert not policy.is_ready
    assert "not asked for its models yet" in policy.reason
    policy.close()
    with pytest.raises(NotReady, match="has stopped"):
        await policy.wait_until_ready()


async def test_password_of_the_address_is_sent_and_never_told(peer: Peer) -> None:
    address = peer.url.replace("http://", "http://me:hush@")
    seen: list[str] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        raise httpx.ReadError("gone", request=request)

    async with remote_of(address, transport=Answering(look)) as remote:
        with pytest.raises(NotReady) as caught:
            await remote.begin(ask())
        assert "hush" not in str(caught.value) + str(remote.card())
    assert seen == ["Basic bWU6aHVzaA=="]
