"""The real app with jobs that run: the golden ArmoRM, a tiny policy, and a real trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.engine.served import ServedModel
from steerward.metrics import Metrics
from steerward.policy.generation import Policy
from steerward.policy.loading import load_policies
from steerward.server.app import create_app
from steerward.server.jobs import ServerJobs
from tests.golden_cases import GOLDEN
from tests.rsf_jobs import SETTINGS, prompt_lines
from tests.server.conftest import client_of

JOBS, FILES = "/v1/fine_tuning/jobs", "/v1/files"
WAIT_S = 120.0
_OVER = ("succeeded", "failed", "cancelled", "paused")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server in this process."""

    http: httpx.AsyncClient
    jobs: ServerJobs
    policies: Mapping[str, Policy]
    engines: Mapping[str, ServedModel]
    state: Path

    def folder(self, job: str) -> Path:
        return self.state / "jobs" / job

    async def upload(self, content: bytes) -> str:
        """Upload rows; return the id of the file."""
        file = {"file": ("rows.jsonl", content)}
        answer = await self.http.post(FILES, data={"purpose": "fine-tune"}, files=file)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    async def create(self, *, name: str = "tiny", rows: int = 40, **rsf: Any) -> str:
        """Upload prompts and create a job; return its id."""
        settings = {**SETTINGS, **rsf}
        return await self.create_of("rsf", settings, name=name, content=prompt_lines(rows))

    async def create_of(
        self, method: str, settings: Mapping[str, Any], *, content: bytes, name: str = "tiny"
    ) -> str:
        """Upload rows and create a job of any method; return its id."""
        body = {
            "model": name,
            "training_file": await self.upload(content),
            "method": {"type": method, method: settings},
            "seed": 5,
        }
        answer = await self.http.post(JOBS, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    async def job(self, job: str) -> dict[str, Any]:
        answer = await self.http.get(f"{JOBS}/{job}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, job: str, action: str) -> dict[str, Any]:
        answer = await self.http.post(f"{JOBS}/{job}/{action}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(
        self, job: str, reached: Callable[[dict[str, Any]], bool], *, wait_s: float = WAIT_S
    ) -> dict[str, Any]:
        """Return the job when something is so."""
        try:
            async with asyncio.timeout(wait_s):
                while not reached(found := await self.job(job)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(await self.job(job)) from None
        return found

    async def end(self, job: str, *, wait_s: float = WAIT_S) -> dict[str, Any]:
        """Return the job when it runs no more."""
        return await self.until(job, lambda found: found["status"] in _OVER, wait_s=wait_s)

    async def messages(self, job: str) -> list[str]:
        """Return what happened to the job, in order."""
        answer = await self.http.get(f"{JOBS}/{job}/events", params={"limit": 100})
        return [event["message"] for event in answer.json()["data"]][::-1]

    async def models(self) -> list[str]:
        return [model["id"] for model in (await self.http.get("/v1/models")).json()["data"]]


@asynccontextmanager
async def running_server(
    state: Path, policy: Path | str, *, patience_s: float = 60.0, **config: Any
) -> AsyncIterator[RunningServer]:
    """Start a server on a state folder, and stop it as SIGTERM does."""
    settings = ServeConfig(
        **{
            "reward_model": [str(GOLDEN / "armorm")],
            "policy": [str(policy)],
            "device": "cpu",
            "policy_device": "cpu",
            "prefix_cache_bytes": 0,
            "state_dir": state,
            "job_lease_s": 60.0,
            **config,
        }
    )
    metrics = Metrics()
    engines = load_engines(settings, metrics)
    policies = load_policies(settings, taken=list(engines))
    jobs = ServerJobs(settings, policies, engines, patience_s=patience_s)
    app = create_app(settings, engines, policies, metrics, jobs)
    async with app.router.lifespan_context(app), client_of(app, timeout=60.0) as http:
        for model in (*engines.values(), *policies.values()):
            await model.wait_until_ready()
        yield RunningServer(http, jobs, policies, engines, state)
