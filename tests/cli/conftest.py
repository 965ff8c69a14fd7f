"""The real routes around a real store, on a real port; the jobs are moved by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from fastapi import FastAPI

from steerward.config import ServeConfig
from steerward.jobs.database import open_database
from steerward.jobs.desk import JobDesk
from steerward.jobs.files import FileStore
from steerward.jobs.store import JobStore
from steerward.metrics import Metrics
from steerward.policy.steering import SteeredPolicy
from steerward.protocol.fine_tuning import JobRequest
from steerward.server.errors import install_error_handlers
from steerward.server.middleware import RequestMiddleware
from steerward.server.routes import files, fine_tuning, operations
from steerward.server.state import ServerState

OWNER = "test"
KEY = "hush"


class Faults:
    """A broken network before an app: what is between, and not the app, answers."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.kind: Literal["none", "busy", "half"] = "none"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.kind == "none":
            await self.app(scope, receive, send)
            return
        status = 503 if self.kind == "busy" else 200
        headers = [(b"content-length", b"100"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"{" if self.kind == "half" else b" " * 100
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class JobServer:
    """A server that takes jobs and runs none, and the store that a test moves them by."""

    url: str
    store: JobStore
    files: FileStore
    faults: Faults
    policies: dict[str, SteeredPolicy]

    def start(self, job_id: str) -> None:
        """Begin with the only job that waits, as a runner does."""
        record = self.store.acquire(OWNER, models=["pocket-policy"], lease_s=60.0)
        assert record is not None
        assert record.id == job_id


@contextmanager
def listening(app: Any, *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """Run an app on a port of this machine, in a thread; gives its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan=lifespan, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    (listener,) = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds, 8 seconds at most."""
    deadline = time.monotonic() + 8.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refuse_nothing(_: JobRequest) -> None:
    """Let every job pass that the schema lets pass."""


def file_of(server: JobServer) -> str:
    """Keep a file of prompts, and return its id."""
    with server.files.upload("prompts.jsonl") as upload:
        upload.write(b'{"prompt": "Tell me."}\n')
        return upload.finish().id


@pytest.fixture
def job_id(job_server: JobServer) -> str:
    """A job that waits."""
    body = {
        "model": "pocket-policy",
        "training_file": file_of(job_server),
        "method": {"type": "rsf", "rsf": {}},
    }
    return job_server.store.create(JobRequest.model_validate(body), seed=0).id


def job_app(desk: JobDesk, config: ServeConfig, policies: Mapping[str, SteeredPolicy]) -> FastAPI:
    app = FastAPI()
    metrics = Metrics()
    app.state.steerward = ServerState({}, policies, config, metrics, desk)
    for router in (files.router, fine_tuning.router, operations.keyed_router):
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(RequestMiddleware, metrics=metrics, max_body_bytes=config.max_body_bytes)
    return app


@pytest.fixture
def job_server(
    tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[JobServer]:
    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store = JobStore(engine)
    kept = FileStore(engine, tmp_path / "kept", max_bytes=10_000, max_rows=100)

    async def forget(_: object) -> None:
        pass

    desk = JobDesk(store, kept, check=refuse_nothing, on_change=lambda: None, on_delete=forget)
    config = ServeConfig(api_key=[KEY], state_dir=tmp_path)  # pyright: ignore[reportArgumentType]
    monkeypatch.setenv("STEERWARD_API_KEY", KEY)
    policies: dict[str, SteeredPolicy] = {}
    faults = Faults(job_app(desk, config, policies))
    with listening(faults) as url:
        monkeypatch.setenv("STEERWARD_SERVER", url)
        yield JobServer(url, store, kept, faults, policies)
    desk.close()
    engine.dispose()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "Tell me {number}."}}\n' for number in range(12)))
    return path
