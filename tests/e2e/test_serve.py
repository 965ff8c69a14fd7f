"""``steerward serve`` as a user runs it: a process, a port, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steerward import Client
from steerward.protocol.errors import ConnectionFailed, SteerwardError
from tests.golden_cases import GOLDEN, GOLDEN_TOLERANCE, golden_cases

pytestmark = pytest.mark.e2e

SECRET = "a prompt that nobody else may read"


class Server:
    """A server process on a port of its own choice."""

    def __init__(self, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "steerward",
            "serve",
            "--port",
            "0",
            "--log-format",
            "json",
        ]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERWARD_")}
        self.process = subprocess.Popen(
            [*command, "--device", "cpu", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for_url()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if found := re.search(r"running on (http://[\d.:]+)", line):
                    return found[1]
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.02)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        """Kill the process if it still runs, and let go of its output."""
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_until_ready(self, client: Client) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                client.score("hi", ["ho"])
                return
            except SteerwardError as error:
                if not error.is_retryable:
                    raise
                time.sleep(0.05)


@contextmanager
def serving(*options: str) -> Iterator[tuple[Server, Client]]:
    server = Server(*options)
    try:
        with Client(server.url, max_retries=0) as client:
            server.wait_until_ready(client)
            yield server, client
    finally:
        server.stop()


def test_golden_scores_over_a_real_port_and_nothing_private_in_the_log() -> None:
    with serving("--reward-model", str(GOLDEN / "armorm")) as (server, client):
        for case in golden_cases("armorm"):
            answer = client.score_items([{"messages": case["messages"]}], explain=True)
            assert answer.model == "armorm"
            score = answer.items[0].candidates[0].score
            assert score == pytest.approx(case["score"], abs=GOLDEN_TOLERANCE)
        client.score(SECRET, [SECRET])
        with pytest.raises(SteerwardError):
            client.score(SECRET, [SECRET * 1000])
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    log = "".join(server.lines)
    assert SECRET not in log
    assert all(json.loads(line) for line in server.lines)
    access = [json.loads(line) for line in server.lines if "/v1/score" in line]
    assert access
    assert all(record["request_id"].startswith("req-") for record in access)


def test_sigterm_finishes_what_is_in_flight() -> None:
    options = ("--reward-model", str(GOLDEN / "armorm"), "--max-batch-tokens", "64")
    with serving(*options) as (server, client):
        items = [{"prompt": f"p {i}", "candidates": ["word " * 300]} for i in range(150)]
        answers: list[object] = []

        def score() -> None:
            try:
                answers.append(client.score_items(items))
            except SteerwardError as error:
                answers.append(error)

        thread = threading.Thread(target=score)
        thread.start()
        with Client(server.url) as other:
            while not other.models()[0].queued_tokens:
                time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        thread.join(timeout=60)
        server.process.wait(timeout=60)
        (answer,) = answers
        assert not isinstance(answer, SteerwardError), answer
        assert len(answer.items) == len(items)  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ConnectionFailed):
            client.score("hi", ["ho"])


def test_drain_deadline_answers_503_and_ends() -> None:
    options = ("--reward-model", str(GOLDEN / "armorm"), "--max-batch-tokens", "64")
    with serving(*options, "--drain-timeout-s", "0.2") as (server, client):
        items = [{"prompt": f"p {i}", "candidates": ["word " * 350]} for i in range(1000)]
        failures: list[SteerwardError] = []

        def score() -> None:
            with pytest.raises(SteerwardError) as caught:
                client.score_items(items)
            failures.append(caught.value)

        thread = threading.Thread(target=score)
        thread.start()
        with Client(server.url) as other:
            while not other.models()[0].queued_tokens:
                time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        thread.join(timeout=60)
        server.process.wait(timeout=60)
        (failure,) = failures
        assert failure.code == "not_ready"
        assert "shutting down" in failure.message


def test_bad_model_and_port_in_use_end_with_a_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = {
            ("--reward-model", str(GOLDEN)): "has no config.json",
            ("--port", str(port)): "address already in use",
        }
        for arguments, reason in cases.items():
            done = subprocess.run(
                [sys.executable, "-m", "steerward", "serve", *arguments],
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode != 0
            assert reason in done.stderr
            assert "Traceback" not in done.stderr
