"""``steerward rsf``: the loop of a job, in this process, with a server's models."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steerward.cli.rsf_settings import RsfConfig
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress
from steerward.protocol.rsf import RsfSettings
from steerward.protocol.validation import invalid_request

_SETTINGS_FILE = "settings.json"
_SFT_FILE = "file"


def run_rsf(config: RsfConfig) -> None:
    """Run the loop to its end.

    Raises:
        SteerwardError: Why it cannot go on.
    """
    settings = _settings(config)
    _keep(config, settings)
    asyncio.run(_run(config, settings))


def _settings(config: RsfConfig) -> RsfSettings:
    given: dict[str, Any] = dict(config.rsf or {})
    if config.sft_file is not None:
        # The server's ids of files have no meaning here; the path is given beside it.
        given["sft_file"] = _SFT_FILE
    try:
        return RsfSettings.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise invalid_request(error.errors()) from error


def _keep(config: RsfConfig, settings: RsfSettings) -> None:
    """Refuse a folder whose run had other settings."""
    text = json.dumps(
        {
            "rsf": settings.model_dump(),
            "seed": config.seed,
            "base": config.base,
            "prompts": str(config.prompts_file.resolve()),
        }
    )
    path = config.out / _SETTINGS_FILE
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InvalidRequest(
            f"{config.out} holds a run with other settings; give another --out, or the same "
            "settings to go on with it"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def _run(config: RsfConfig, settings: RsfSettings) -> None:
    from steerward.jobs.rsf.loop import LoopInput, LoopPorts, RsfLoop
    from steerward.jobs.rsf.rest import RestPolicy, RestRewards, Server, policy_and_rewards
    from steerward.jobs.trainer import ProcessTrainer
    from steerward.models.source import resolve_source

    async with aclosing(Server(config.server, api_key=config.key)) as server:
        card, rewards = await policy_and_rewards(
            server, model=config.model, reward_model=settings.reward_model
        )
        policy = RestPolicy(server, card, name=config.name or f"rsf:{card.id}")
        given = LoopInput(
            job_id=policy.name,
            settings=settings,
            seed=settings.seed if settings.seed is not None else config.seed,
            prompts=config.prompts_file,
            validation_prompts=config.validation_file,
            sft=config.sft_file,
            base=resolve_source(config.base),
            folder=config.out.resolve(),
        )
        trainer = ProcessTrainer(settings.training, accelerate_config=config.accelerate_config)
        ports = LoopPorts(policy, RestRewards(server, rewards), trainer, policy)
        with _Terminal() as terminal:
            outcome = await RsfLoop(given, ports, terminal).run()
    print(f"policy of iteration {outcome.iteration} -> {outcome.folder}")
    print(f"served as {policy.name}; report -> {given.folder / 'report.html'}", file=sys.stderr)


class _Terminal:
    """Shows a loop on the terminal: a bar for the step at hand, a line for each event."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=1, bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}]")

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def progress(self, progress: JobProgress) -> None:
        """Move the bar."""
        rate = f", {progress.tokens_per_s:,.0f} tokens/s" if progress.tokens_per_s else ""
        place = f"iteration {progress.iteration}/{progress.iterations}"
        self._bar.set_description_str(f"{place}, {progress.step}{rate}", refresh=False)
        self._bar.total = max(1, progress.total)
        self._bar.n = progress.done
        self._bar.refresh()

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Print a line."""
        del type, data
        self._bar.write(message if level == "info" else f"{level}: {message}", file=sys.stderr)

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        """Say nothing: there is an event for it."""
