"""The ways to score that are servers: each in a process of its own, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoTokenizer

from benchmarks.connection import Connection
from benchmarks.plain import rendered
from benchmarks.subjects import TIMEOUT_S, Subject
from benchmarks.workload import Item

_START_S = 300


class Process:
    """A server that says on its standard error where it listens, with all its children.

    Args:
        command: Starts it.
        variables: Of its environment, beside those of this process.
    """

    def __init__(self, command: Sequence[str], *, variables: Mapping[str, str]) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERWARD_")}
        # What is measured must not go on with the jobs of whoever measures.
        environment |= {"STEERWARD_JOBS": "false"} | dict(variables)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            self._log.seek(0)
            found = re.search(r"running on (http://[\d.:]+)", self._log.read())
            if found and asyncio.run(_is_ready(found[1])):
                return found[1]
            time.sleep(0.05)
        self._log.seek(0)
        text = self._log.read()
        self.stop()
        raise RuntimeError(f"the server did not start:\n{text}")

    def stop(self) -> None:
        """End the process and its children."""
        try:
            os.killpg(self.pid, signal.SIGTERM)
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(timeout=30)
        except ProcessLookupError:
            self._process.wait(timeout=30)
        self._log.close()


def free_port() -> int:
    """Return a port that nobody listened on a moment ago, for servers that cannot find one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def version_of(python: str, package: str) -> str | None:
    """Return the version of a package in the environment of an interpreter, or None."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


async def _is_ready(url: str) -> bool:
    connection = Connection(url)
    try:
        return (await connection.get("/health"))[0] == 200
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        await connection.close()


class ServedSubject(Subject):
    """A server under a fixed number of clients, each with one request at a time.

    Args:
        command: Starts the server, which says where it listens.
        clients: Each sends its next request when it has its answer.
        variables: Of the server's environment, beside those of this process.
    """

    path: ClassVar[str]
    """Where requests are posted to."""

    def __init__(
        self, command: Sequence[str], *, clients: int, variables: Mapping[str, str] | None = None
    ) -> None:
        self._process = Process(command, variables=variables or {})
        self.pid, self.url = self._process.pid, self._process.url
        self.runner = asyncio.Runner()
        self.connections = [Connection(self.url) for _ in range(clients)]

    @abstractmethod
    def requests(self, item: Item) -> list[dict[str, Any]]:
        """Return the bodies that ask for the candidates of an item, in order."""

    @abstractmethod
    def scores(self, answer: Any) -> list[float]:
        """Return the scores of an answer."""

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores in order."""
        return self.runner.run(self._score(items))

    async def _score(self, items: Sequence[Item]) -> list[float]:
        bodies = [body for item in items for body in self.requests(item)]
        waiting = iter(enumerate(bodies))
        found: list[list[float]] = [[] for _ in bodies]

        async def client(connection: Connection) -> None:
            for place, body in waiting:
                status, answer = await connection.post(self.path, json.dumps(body).encode())
                if status != 200:
                    raise RuntimeError(f"{self.path} answered {status}: {answer[:200]!r}")
                found[place] = self.scores(json.loads(answer))

        await asyncio.gather(*map(client, self.connections))
        return [score for scores in found for score in scores]

    def close(self) -> None:
        """End the process."""
        for connection in self.connections:
            self.runner.run(connection.close())
        self.runner.close()
        self._process.stop()


class ServerSubject(ServedSubject):
    """``steerward serve``, a request an item.

    Args:
        folder: Checkpoint.
        clients: See `ServedSubject`.
        settings: Of `ServeConfig`, where they are not the defaults.
    """

    path = "/v1/score"

    def __init__(
        self, folder: Path, *, clients: int = 64, settings: Mapping[str, object] | None = None
    ) -> None:
        command = [sys.executable, "-m", "steerward", "serve", "--reward-model", str(folder)]
        command += ["--policy", "none"]
        flags = {"name": "bench", "port": 0, "device": "cpu", "request_timeout_s": TIMEOUT_S}
        for name, value in (flags | dict(settings or {})).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        super().__init__(command, clients=clients)

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far."""
        _, text = self.runner.run(self.connections[0].get("/metrics"))
        name = "steerward_computed_tokens_total"
        found = re.search(rf'^{name}{{model="bench"}} (\S+)', text.decode(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def requests(self, item: Item) -> list[dict[str, Any]]:
        """Return the one request of an item."""
        return [{"items": [item.body()]}]

    def scores(self, answer: Any) -> list[float]:
        """Return the scores of an answer."""
        return [one["score"] for one in answer["items"][0]["candidates"]]


class TextServerSubject(ServedSubject):
    """A server of `benchmarks.peers`, which scores rendered texts and counts its tokens.

    Args:
        folder: Checkpoint; its tokenizer renders the texts, as clients of such servers do.
        module: Of the peer.
        python: Interpreter that has what the peer needs.
        takes_many: Whether a request may hold several texts.
        clients: See `ServedSubject`.
    """

    path = "/get_reward"

    def __init__(
        self,
        folder: Path,
        *,
        module: str,
        python: str = sys.executable,
        takes_many: bool = True,
        clients: int = 64,
    ) -> None:
        super().__init__([python, "-m", module, str(folder)], clients=clients)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._takes_many = takes_many
        self._computed_tokens = 0.0

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far, padding included."""
        return round(self._computed_tokens)

    def requests(self, item: Item) -> list[dict[str, Any]]:
        """Return a request for all texts of an item, or one for each."""
        texts = rendered(self._tokenizer, item)
        return [{"query": texts}] if self._takes_many else [{"query": [text]} for text in texts]

    def scores(self, answer: Any) -> list[float]:
        """Return the scores of an answer, and count its tokens."""
        self._computed_tokens += answer["computed_tokens"]
        return answer["rewards"]
