"""What the routes share: models by name, settings, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from steerward.config import ServeConfig
from steerward.engine.exchange import ExchangeableModel
from steerward.jobs.desk import JobDesk
from steerward.metrics import Metrics
from steerward.policy.steering import SteeredPolicy
from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.server.idempotency import AnswerStore
from steerward.server.pause import Pause
from steerward.server.rewards import EngineRewards


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server process."""

    engines: Mapping[str, ExchangeableModel]
    policies: Mapping[str, SteeredPolicy]
    config: ServeConfig
    metrics: Metrics
    jobs: JobDesk | None = None
    """None: the server runs no jobs."""
    pause: Pause = field(default_factory=Pause)
    answers: AnswerStore = field(default_factory=AnswerStore)
    """Kept for clients that send a request again."""

    @property
    def weight_folders(self) -> tuple[Path, ...]:
        """Below which weights may be loaded by request."""
        return (self.config.state_folder, *self.config.weights_dir)

    def engine(self, model: str | None, *, param: str = "model") -> ExchangeableModel:
        """Return the engine of a reward model.

        Raises:
            NotFound: If no reward model has that name; the known ones are listed.
            InvalidRequest: If no name is given and there are several.
        """
        known = ", ".join(self.engines)
        if model is None:
            if len(self.engines) > 1:
                raise InvalidRequest(f"name the model, one of: {known}", param=param)
            return next(iter(self.engines.values()))
        engine = self.engines.get(model)
        if engine is not None:
            return engine
        if model in self.generating:
            raise NotFound(
                f"{model!r} is a policy, which draws completions at POST /v1/chat/completions; "
                f"reward models: {known}",
                param=param,
            )
        raise NotFound(f"there is no model {brief(model)!r} here; known: {known}", param=param)

    @property
    def generating(self) -> dict[str, tuple[SteeredPolicy, str | None]]:
        """Policies and their variants, by the names that requests give."""
        found: dict[str, tuple[SteeredPolicy, str | None]] = {}
        for name, steered in self.policies.items():
            found[name] = (steered, None)
            found.update({variant: (steered, variant) for variant in steered.policy.variants})
        return found

    def policy(
        self, model: str | None, *, reward_model: str | None = None
    ) -> tuple[SteeredPolicy, str | None]:
        """Return the policy of a name, with what scores its completions, and the variant.

        Raises:
            NotFound: If no policy, no variant or no reward model has that name.
            InvalidRequest: If no name is given and there are several policies.
        """
        steered, variant = self._generating(model)
        if reward_model is not None:
            rewards = EngineRewards(self.engine(reward_model, param="reward_model"))
            steered = SteeredPolicy(steered.policy, rewards)
        return steered, variant

    def _generating(self, model: str | None) -> tuple[SteeredPolicy, str | None]:
        if not self.policies and model not in self.engines:
            raise NotFound("this server has no policy; start it with --policy", param="model")
        by_name = self.generating
        known = ", ".join(by_name) or "none"
        if model is None:
            if len(self.policies) > 1:
                raise InvalidRequest(f"name the policy, one of: {known}", param="model")
            model = next(iter(self.policies))
        if model in by_name:
            return by_name[model]
        if model in self.engines:
            raise NotFound(
                f"{model!r} is a reward model, which scores at POST /v1/score; policies: {known}",
                param="model",
            )
        raise NotFound(f"there is no policy {brief(model)!r} here; known: {known}", param="model")

    def begin_drain(self) -> None:
        """Take no more requests."""
        if self.jobs is not None:
            self.jobs.begin_drain()
        for engine in self.engines.values():
            engine.begin_drain()
        for steered in self.policies.values():
            steered.policy.begin_drain()
        # What is held would be held to the end.
        self.pause.end()

    async def close(self) -> None:
        """Close all models at once: each answers what waits, and may take seconds to end."""
        loop = asyncio.get_running_loop()
        closing = [engine.close for engine in self.engines.values()]
        closing += [steered.policy.close for steered in self.policies.values()]
        with ThreadPoolExecutor(max_workers=max(1, len(closing))) as pool:
            await asyncio.gather(*(loop.run_in_executor(pool, close) for close in closing))


def state_of(request: Request) -> ServerState:
    """Return the state of the server that answers a request."""
    return request.app.state.steerward
