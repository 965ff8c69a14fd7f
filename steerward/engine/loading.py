"""From settings to engines: load each reward model under its name."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from steerward.config import EngineConfig, ServeConfig
from steerward.engine.engine import Engine
from steerward.engine.exchange import ExchangeableModel, Loaded
from steerward.engine.group import EngineGroup
from steerward.engine.observation import Observer
from steerward.engine.served import ServedModel
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.models.source import checkpoint_name
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.scoring import ModelCard

logger = logging.getLogger(__name__)


def load_engine(source: str, *, name: str, config: EngineConfig, metrics: Metrics) -> ServedModel:
    """Return one reward model on the devices of the settings, not started yet.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If it cannot be loaded without guessing, or a device is not there.
    """
    loader = _Loader(name, config, metrics)
    return loader.load(source, check=lambda _: None, is_shown=True).served


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads engines of one name, all with the same settings."""

    name: str
    config: EngineConfig
    metrics: Metrics

    def load(
        self, source: str, *, check: Callable[[RewardModel], None], is_shown: bool = False
    ) -> Loaded:
        """Return a reward model that passes a check, on the devices of the settings."""
        config, name = self.config, self.name
        engines: list[Engine] = []
        observer: Observer | None = None
        try:
            for device in _devices(config):
                began_at = time.perf_counter()
                model = load_reward_model(source, device=device, dtype=config.dtype)
                if config.max_input_tokens is not None:
                    model.limit_input(config.max_input_tokens)
                check(model)
                observer = observer or Observer(
                    self.metrics, model=name, objectives=model.objectives, is_shown=is_shown
                )
                engine = Engine(
                    model, name=name, config=config, metrics=self.metrics, observer=observer
                )
                engines.append(engine)
                _log_loaded(engine.card(), seconds=time.perf_counter() - began_at)
            assert observer is not None
            return Loaded(engines[0] if len(engines) == 1 else EngineGroup(engines), observer)
        except BaseException:
            # What is there of it holds memory that the weights that are served may need.
            for engine in engines:
                engine.close()
            if observer is not None:
                observer.retire()
            raise


def _devices(config: EngineConfig) -> Sequence[str]:
    if config.devices != ["all"]:
        return config.devices or [config.device]
    count = torch.cuda.device_count()
    if not count:
        raise CheckpointRefused("devices are all GPUs, and torch sees none; name the devices")
    return [f"cuda:{i}" for i in range(count)]


def _log_loaded(card: ModelCard, *, seconds: float) -> None:
    logger.info(
        "loaded %s: %d objectives, %.1f M parameters, %s on %s, up to %d tokens, in %.1f s",
        card.id,
        len(card.objectives),
        card.num_parameters / 1e6,
        card.dtype,
        card.device,
        card.max_input_tokens,
        seconds,
    )


def load_exchangeable(
    source: str, *, name: str, config: EngineConfig, metrics: Metrics
) -> ExchangeableModel:
    """Return one reward model whose weights can be exchanged, not started yet.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If it cannot be loaded without guessing, or a device is not there.
    """
    loader = _Loader(name, config, metrics)
    first = loader.load(source, check=lambda _: None, is_shown=True)
    return ExchangeableModel(first, load=lambda folder, check: loader.load(folder, check=check))


def load_engines(config: ServeConfig, metrics: Metrics) -> dict[str, ExchangeableModel]:
    """Return the engines of a server by model name, in the order of the command line.

    Raises:
        CheckpointRefused: If two models have the same name, or one cannot be loaded.
    """
    names: Sequence[str] = config.name or [checkpoint_name(s) for s in config.reward_model]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise CheckpointRefused(
            f"two reward models are called {repeated[0]!r}; give each its own --name"
        )
    return {
        name: load_exchangeable(source, name=name, config=config, metrics=metrics)
        for name, source in zip(names, config.reward_model, strict=True)
    }
