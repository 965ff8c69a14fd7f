"""What the adapters share: one request a batch, failures, deadlines, processes and loops."""

from __future__ import annotations

import asyncio
import os
import runpy
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from steerward.clients import Client
from steerward.clients._rewards import scorer
from steerward.clients._samples import Sample, grouped
from steerward.protocol.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    InputTooLong,
    InvalidDirection,
    InvalidRequest,
    NotReady,
    Unauthorized,
)
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

RECIPES = Path(__file__).parents[2] / "recipes"
HELLO = [{"role": "user", "content": "Hello, how are you?"}]
TOO_LONG = Sample(HELLO, "rain " * 3_000)
_SLOW_S = 0.6
SAMPLES = [Sample(HELLO, "Fine."), Sample("Rain?", "No."), Sample(HELLO, "Well.")]


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


def test_samples_of_one_prompt_are_one_item() -> None:
    items, places = grouped(SAMPLES)
    assert items == [
        {"prompt": HELLO, "candidates": ["Fine.", "Well."]},
        {"prompt": "Rain?", "candidates": ["No."]},
    ]
    assert places == [[0, 2], [1]]


def test_scores_come_back_in_the_order_of_samples(url: str) -> None:
    scored = scorer(url, api_key=KEY).score(SAMPLES, explain=True)
    with Client(url, api_key=KEY) as client:
        for sample, found in zip(SAMPLES, scored, strict=True):
            (item,) = client.score(sample.prompt, [sample.answer], explain=True).items
            assert found is not None
            assert found.score == pytest.approx(item.candidates[0].score, abs=1e-4)
            assert found.rewards == pytest.approx(item.candidates[0].rewards, abs=1e-4)
            assert found.gates == pytest.approx(item.gates, abs=1e-4)
            assert sum((found.contributions or {}).values()) == pytest.approx(found.score, abs=1e-4)


def test_no_samples_need_no_server() -> None:
    assert scorer("http://127.0.0.1:9").score([]) == []


def test_every_loop_may_end_with_its_call(url: str) -> None:
    scoring = scorer(url, api_key=KEY)
    first, second = (asyncio.run(scoring.score_async(SAMPLES)) for _ in range(2))
    # The second time the prompts are in the server's cache, which may round the last bit.
    assert [one.score for one in first if one] == pytest.approx(
        [one.score for one in second if one], abs=1e-5
    )
    assert None not in first


def test_many_threads_and_one_answer_each(url: str) -> None:
    scoring = scorer(url, api_key=KEY)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: scoring.score([Sample("Rain?", f"{i}.")]), range(32)))
    assert len({answer[0].score for answer in answers if answer[0] is not None}) > 16


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_has_connections_of_its_own(url: str) -> None:
    scoring = scorer(url, api_key=KEY)
    scoring.score(SAMPLES)
    child = os.fork()
    if child == 0:
        # Nothing of pytest may run in the child.
        os._exit(0 if scoring.score(SAMPLES)[0] is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    scoring.score(SAMPLES)


@dataclass
class Network:
    """What lies between: loses, refuses or holds the first requests, or asks another server.

    The other server differs in the version of its weights, as one behind a balancer may.
    """

    url: str = ""
    faults: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@contextmanager
def broken_network(target: str, *faults: str) -> Iterator[Network]:
    network = Network(faults=list(faults))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            network.keys.append(self.headers["idempotency-key"])
            fault = network.faults.pop(0) if network.faults else ""
            if fault == "drop":
                self.close_connection = True
                return
            if fault == "slow":
                time.sleep(_SLOW_S)
            names = ("authorization", "content-type")
            headers = {name: self.headers[name] for name in names}
            answer = httpx.post(target + self.path, content=content, headers=headers)
            refuses = fault in ("refuse", "refuse for long")
            body = answer.content
            if fault == "another":
                body = body.replace(b'"weight_version":"', b'"weight_version":"another-')
            self.send_response(503 if refuses else answer.status_code)
            self.send_header("content-length", str(len(body)))
            self.send_header("retry-after", "150" if fault == "refuse for long" else "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    network.url = f"http://127.0.0.1:{server.server_port}"
    yield network
    server.shutdown()
    thread.join()
    server.server_close()


def test_retries_repeat_the_idempotency_key_and_other_calls_do_not(url: str) -> None:
    with broken_network(url, "refuse", "drop") as network:
        scoring = scorer(network.url, api_key=KEY)
        first, second = scoring.score(SAMPLES), scoring.score(SAMPLES)
    assert first == second == scorer(url, api_key=KEY).score(SAMPLES)
    assert len(network.keys) == 4
    assert len(set(network.keys[:3])) == 1
    assert network.keys[3] not in network.keys[:3]


def test_server_that_stays_away_is_an_error_after_the_deadline() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s; the last of 1 attempts: no"):
            scorer(nobody, deadline_s=0.3, on_error="none").score(SAMPLES)
    with pytest.raises(ConnectionFailed):
        scorer(nobody).objectives()


def test_wrong_key_raises_whatever_a_failed_sample_does(url: str) -> None:
    with pytest.raises(Unauthorized):
        scorer(url, api_key="wrong", on_error="none").score(SAMPLES)


def test_failed_samples_are_none_and_the_others_have_their_scores(url: str) -> None:
    long = "rain " * 3_000
    broken = [*SAMPLES, Sample(HELLO, long), Sample(long, "No."), Sample("", "Empty prompt.")]
    scored = scorer(url, api_key=KEY, on_error="none").score(broken)
    assert [found is None for found in scored] == [False, False, False, True, True, True]
    whole = scorer(url, api_key=KEY).score(SAMPLES)
    assert [one.score for one in scored[:3] if one] == pytest.approx(
        [one.score for one in whole if one], abs=1e-4
    )
    with pytest.raises(InputTooLong):
        scorer(url, api_key=KEY).score(broken[:4])


def test_deadline_is_of_the_whole_batch_however_many_requests_it_takes(url: str) -> None:
    """Each part of a batch that was split had the whole deadline again."""
    with broken_network(url, *["slow"] * 3) as network:
        scoring = scorer(network.url, api_key=KEY, deadline_s=1.5 * _SLOW_S, on_error="none")
        with pytest.raises(DeadlineExceeded, match=r"within 0\.9 s"):
            scoring.score([*SAMPLES, TOO_LONG])
        assert len(network.keys) == 3


def test_server_may_ask_for_any_pause_within_the_deadline(url: str) -> None:
    """More than two minutes ended the batch at once, whatever its deadline."""
    late = pytest.raises(DeadlineExceeded, match=r"within 0\.5 s; the last of 1 attempts")
    with broken_network(url, "refuse for long") as network, late:
        scorer(network.url, api_key=KEY, deadline_s=0.5).score(SAMPLES)


def test_parts_of_different_weights_are_scored_once_more(url: str) -> None:
    # The whole batch fails for its last sample, and goes in halves.
    with broken_network(url, "", "", "another") as network:
        scored = scorer(network.url, api_key=KEY, on_error="none").score([*SAMPLES, TOO_LONG])
    assert [found is None for found in scored] == [False, False, False, True]
    # Another key: by the first one, the server would give its first answers again.
    assert len(set(network.keys)) == len(network.keys) == 6


def test_weights_that_keep_changing_within_a_batch_are_an_error(url: str) -> None:
    mixed = pytest.raises(NotReady, match="4 samples went in several requests")
    with broken_network(url, *["", "", "another"] * 2) as network, mixed:
        scorer(network.url, api_key=KEY, on_error="none").score([*SAMPLES, TOO_LONG])
    assert len(network.keys) == 6


def test_batch_beyond_the_limit_of_a_request_goes_in_several(url: str) -> None:
    many = [Sample(f"Question {i}?", "Yes.") for i in range(1_100)]
    assert None not in scorer(url, api_key=KEY).score(many)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("openrlhf/reward_func.py", ["reward_func"]),
        ("areal/reward.py", ["reward"]),
        ("easyr1/reward.py", ["REWARD_NAME", "REWARD_TYPE", "compute_score"]),
        ("verifiers/rewards.py", ["score", "objectives"]),
        ("nemo/app.py", ["app"]),
    ],
)
def test_files_of_the_recipes_have_what_trainers_load(file: str, names: list[str]) -> None:
    assert set(names) <= set(runpy.run_path(str(RECIPES / file)))


def test_settings_that_contradict_are_refused() -> None:
    one = {"objective_0": 1.0}
    with pytest.raises(InvalidDirection, match="both given"):
        scorer("http://127.0.0.1:9", weights=one, direction=one)
    wrong: Any = "zero"
    with pytest.raises(InvalidRequest, match="'zero'"):
        scorer("http://127.0.0.1:9", on_error=wrong)
