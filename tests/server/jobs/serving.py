"""An app with the routes of files and jobs around real stores, and how tests ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from steerward.config import ServeConfig
from steerward.jobs.database import open_database
from steerward.jobs.desk import JobDesk
from steerward.jobs.files import FileStore
from steerward.jobs.records import FineTuned, JobRecord
from steerward.jobs.store import JobStore
from steerward.metrics import Metrics
from steerward.protocol.errors import NotFound
from steerward.protocol.fine_tuning import JobRequest
from steerward.server.errors import install_error_handlers
from steerward.server.middleware import BodyLimit, RequestMiddleware
from steerward.server.routes import files, fine_tuning
from steerward.server.state import ServerState

JOBS, FILES = "/v1/fine_tuning/jobs", "/v1/files"
POLICY = "pocket-policy"
MOST_FILE_BYTES = 32 * 1024 * 1024
PROMPTS = [{"prompt": f"What is {number} times {number}?"} for number in range(4)]
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
]


@dataclass(frozen=True, slots=True)
class Serving:
    """An app and what is behind it."""

    app: FastAPI
    store: JobStore
    files: FileStore
    desk: JobDesk
    changes: list[str] = field(default_factory=list)
    """One entry for each time that a runner was told of something new."""
    deleted: list[FineTuned] = field(default_factory=list)


@asynccontextmanager
async def serving(folder: Path, config: ServeConfig) -> AsyncIterator[Serving]:
    """Make the app, and close what is behind it."""
    changes: list[str] = []
    deleted: list[FineTuned] = []

    async def forget(model: FineTuned) -> None:
        deleted.append(model)

    engine = open_database(f"sqlite:///{folder / 'state.sqlite'}")
    store = JobStore(engine)
    held = FileStore(engine, folder / "files", max_bytes=MOST_FILE_BYTES, max_rows=1_000_000)
    desk = JobDesk(
        store, held, check=knows_model, on_change=lambda: changes.append("new"), on_delete=forget
    )
    app = FastAPI()
    app.state.steerward = ServerState({}, {}, config, Metrics(), desk)
    app.include_router(files.router)
    app.include_router(fine_tuning.router)
    install_error_handlers(app)
    limits = {FILES: BodyLimit(MOST_FILE_BYTES + 4096, "--max-file-bytes")}
    app.add_middleware(
        RequestMiddleware,
        metrics=app.state.steerward.metrics,
        max_body_bytes=config.max_body_bytes,
        limits=limits,
    )
    yield Serving(app, store, held, desk, changes, deleted)
    desk.begin_drain()
    desk.close()
    engine.dispose()


def knows_model(request: JobRequest) -> None:
    """The check of a server that can fine-tune one policy."""
    if request.model != POLICY:
        raise NotFound(f"there is no policy {request.model!r} here", param="model")


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def upload(
    client: httpx.AsyncClient, rows: Iterable[Any] = PROMPTS, *, name: str = "rows.jsonl"
) -> str:
    """Upload rows, and return the id of the file."""
    answer = await client.post(
        FILES, data={"purpose": "fine-tune"}, files={"file": (name, lines(rows))}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def job_body(training_file: str, **more: Any) -> dict[str, Any]:
    settings = {"iterations": 2, "directions": 4, **more.pop("rsf", {})}
    method = {"type": "rsf", "rsf": settings}
    return {"model": POLICY, "training_file": training_file, "method": method, **more}


async def create(client: httpx.AsyncClient, training_file: str, **more: Any) -> dict[str, Any]:
    answer = await client.post(JOBS, json=job_body(training_file, **more))
    assert answer.status_code == 200, answer.text
    return answer.json()


def run_job(store: JobStore) -> tuple[JobRecord, str]:
    """Begin the oldest job that waits, as a server that runs jobs does."""
    owner = "test"
    record = store.acquire(owner, models=[POLICY], lease_s=60.0)
    assert record is not None
    return record, owner


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and place of an error answer."""
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]
