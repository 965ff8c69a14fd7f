"""``steerward rsf``: the loop of a job, in this process, with a server's models."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from steerward.cli.rsf_settings import RsfConfig
from steerward.protocol.errors import InvalidRequest, NotFound
from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress
from steerward.protocol.policies import PolicyCard
from steerward.protocol.rsf import RsfSettings
from steerward.protocol.scoring import ModelCard
from steerward.protocol.validation import invalid_request

if TYPE_CHECKING:
    from steerward.jobs.rsf.rest import Server

_SETTINGS_FILE = "settings.json"
_SFT_FILE = "file"


def run_rsf(config: RsfConfig) -> None:
    """Run the loop to its end.

    Raises:
        SteerwardError: Why it cannot go on.
    """
    settings = _settings(config)
    for path in (config.prompts_file, config.validation_file, config.sft_file):
        if path is not None and not path.is_file():
            raise NotFound(f"there is no file {path}; name one that is there")
    config.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(_run(config, settings))


def _settings(config: RsfConfig) -> RsfSettings:
    given: dict[str, Any] = dict(config.rsf or {})
    if config.sft_file is not None:
        # The server's ids of files have no meaning here; the path is given beside it.
        given["sft_file"] = _SFT_FILE
    elif given.get("sft_file") is not None:
        raise InvalidRequest(
            "sft_file in --rsf is the id of a file of a server; name the file with --sft-file"
        )
    try:
        return RsfSettings.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise invalid_request(error.errors()) from error


async def _run(config: RsfConfig, settings: RsfSettings) -> None:
    from steerward.jobs.custody import sole_use
    from steerward.jobs.rsf.rest import Server

    def tell() -> None:
        print(f"waiting for another process that works in {config.out}", file=sys.stderr)

    async with (
        sole_use(config.out, on_wait=tell) as lock,
        aclosing(Server(config.server, api_key=config.key)) as server,
    ):
        await _run_loop(config, settings, server, lock)


async def _run_loop(config: RsfConfig, settings: RsfSettings, server: Server, lock: int) -> None:
    from steerward.jobs.rsf.loop import LoopInput, LoopPorts, RsfLoop
    from steerward.jobs.rsf.rest import RestPolicy, RestRewards, policy_and_rewards
    from steerward.jobs.trainer import ProcessTrainer
    from steerward.models.source import resolve_source

    card, rewards = await policy_and_rewards(
        server, model=config.model, reward_model=settings.reward_model
    )
    policy = RestPolicy(server, card, name=config.name or f"rsf:{card.id}")
    await policy.check_name()
    base = resolve_source(config.base)
    _check_base(config.base, base, card, settings)
    _keep(config, settings, model=card.id, name=policy.name)
    _check_models(config.out, card, rewards)
    given = LoopInput(
        job_id=policy.name,
        settings=settings,
        seed=settings.seed if settings.seed is not None else config.seed,
        prompts=config.prompts_file,
        validation_prompts=config.validation_file,
        sft=config.sft_file,
        base=base,
        folder=config.out.resolve(),
    )
    trainer = ProcessTrainer(
        settings.training,
        accelerate_config=config.accelerate_config,
        # It may outlive this process, if that is killed, by a moment.
        keeps_open=[lock],
    )
    ports = LoopPorts(policy, RestRewards(server, rewards), trainer, policy)
    with _Terminal() as terminal:
        outcome = await RsfLoop(given, ports, terminal).run()
    print(f"policy of iteration {outcome.iteration} -> {outcome.folder}")
    print(f"served as {policy.name}; report -> {given.folder / 'report.html'}", file=sys.stderr)


def _check_base(source: str, base: Path, card: PolicyCard, settings: RsfSettings) -> None:
    """Refuse to fine-tune other weights than those that sample."""
    from steerward.models.source import weight_version

    version = weight_version(base)
    if version != card.weight_version:
        raise InvalidRequest(
            f"--base {source} has the weights {version}, and the server samples from {card.id!r} "
            f"with {card.weight_version}; give the checkpoint that it serves, or another --model",
            param="base",
        )
    if card.parent is not None and settings.training.method == "lora":
        raise InvalidRequest(
            f"{card.id!r} is served beside {card.parent!r}, whose weights an adapter would be put "
            "on; train all weights, or begin with a policy that the server was started with",
            param="method.rsf.training.method",
        )


def _keep(config: RsfConfig, settings: RsfSettings, *, model: str, name: str) -> None:
    """Refuse a folder whose run had other settings."""
    from steerward.jobs.disk import file_digest, write_whole

    files = {
        "prompts": config.prompts_file,
        "validation": config.validation_file,
        "sft": config.sft_file,
    }
    text = json.dumps(
        {
            "rsf": settings.model_dump(),
            "seed": config.seed,
            "model": model,
            "name": name,
            "sha256": {key: path and file_digest(path) for key, path in files.items()},
        },
        indent=2,
    )
    path = config.out / _SETTINGS_FILE
    if not path.exists():
        write_whole(path, lambda building: building.write_text(text, encoding="utf-8"))
    elif path.read_text(encoding="utf-8") != text:
        raise InvalidRequest(
            f"{config.out} holds a run with other settings, names or files (see {_SETTINGS_FILE} "
            "in it); give another --out, or the same as then to go on with it"
        )


def _check_models(folder: Path, card: PolicyCard, rewards: ModelCard) -> None:
    """Refuse to go on with other models than those that the run began with."""
    from steerward.jobs.rsf.origin import Origin, check_origin

    origin = Origin(card.id, card.weight_version, rewards.id, rewards.weight_version)
    check_origin(folder, origin)


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
