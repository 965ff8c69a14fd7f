"""The web application: routes around models that somebody else has made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

import steerward
from steerward.config import ServeConfig
from steerward.engine.exchange import ExchangeableModel
from steerward.metrics import Metrics
from steerward.policy.generation import Policy
from steerward.policy.steering import SteeredPolicy
from steerward.server.compat import routers as compat_routers
from steerward.server.compat.options import check_profiles
from steerward.server.documentation import describe_events
from steerward.server.errors import install_error_handlers
from steerward.server.jobs import ServerJobs
from steerward.server.middleware import BodyLimit, RequestMiddleware
from steerward.server.rewards import EngineRewards
from steerward.server.routes import (
    control,
    files,
    fine_tuning,
    generation,
    models,
    operations,
    score,
)
from steerward.server.state import ServerState

_FORM_BYTES = 64 * 1024

_DESCRIPTION = """
Scores answers with multi-objective reward models and says why; generates answers that are steered
by the same numbers.

Send prompts with candidates to `POST /v1/score`, and conversations to `POST /v1/chat/completions`,
with OpenAI's client if you like. Errors have OpenAI's shape; 429 and 503 carry `Retry-After`.
Nothing is ever truncated, and no score is ever made up.
"""


def create_app(
    config: ServeConfig,
    engines: Mapping[str, ExchangeableModel],
    policies: Mapping[str, Policy],
    metrics: Metrics,
    jobs: ServerJobs | None = None,
) -> FastAPI:
    """Return the app; it starts the models and the jobs, and drains and closes them at the end."""
    desk = jobs.desk if jobs is not None else None
    state = ServerState(engines, _steered(policies, engines), config, metrics, desk)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for model in (*engines.values(), *policies.values()):
            model.start()
        if jobs is not None:
            await jobs.start()
        yield
        # Jobs first: they ask the models. What they have done stays done.
        if jobs is not None:
            await jobs.close()
        # uvicorn has waited for open requests already; what is left has had its time.
        await state.close()

    app = FastAPI(
        title="Steerward",
        version=steerward.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.steerward = state
    app.include_router(score.router)
    app.include_router(generation.router)
    app.include_router(files.router)
    app.include_router(fine_tuning.router)
    app.include_router(models.router)
    app.include_router(control.router)
    check_profiles(config, engines)
    for router in compat_routers:
        app.include_router(router)
    app.include_router(operations.keyed_router)
    app.include_router(operations.router)
    install_error_handlers(app)
    describe_events(app)
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        max_body_bytes=config.max_body_bytes,
        # What is around the file in a form takes room too.
        limits={"/v1/files": BodyLimit(config.max_file_bytes + _FORM_BYTES, "--max-file-bytes")},
    )
    return app


def _steered(
    policies: Mapping[str, Policy], engines: Mapping[str, ExchangeableModel]
) -> dict[str, SteeredPolicy]:
    """Return each policy with the reward model that scores where requests name none: the first."""
    first = next(iter(engines.values()), None)
    rewards = EngineRewards(first) if first is not None else None
    return {name: SteeredPolicy(policy, rewards) for name, policy in policies.items()}
