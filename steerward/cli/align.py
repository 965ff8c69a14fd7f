"""``steerward align ...``: rows, and rewards of a server or of a model that is loaded here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerward.cli.align_settings import (
    AlignConfig,
    CgpoConfig,
    GrpoConfig,
    MaplPolicyConfig,
    ModpoConfig,
    PamaConfig,
    ReportConfig,
    settings_of,
)
from steerward.protocol.alignment import (
    SCORE,
    CgpoSettings,
    GrpoSettings,
    ModpoSettings,
    PamaSettings,
    PolicyTraining,
)
from steerward.protocol.errors import InvalidRequest, NotFound
from steerward.protocol.mapl import MaplSettings

if TYPE_CHECKING:
    from steerward.training.align.columns import RewardSource


def run_grpo(config: GrpoConfig) -> None:
    """Align by multi-objective GRPO."""
    _run_all([config], [settings_of(config, GrpoSettings)], rows=config.prompts_file)


def run_pama(config: PamaConfig) -> None:
    """Align by PAMA."""
    _run_all([config], [settings_of(config, PamaSettings)], rows=config.prompts_file)


def run_cgpo(config: CgpoConfig) -> None:
    """Align by CGPO."""
    _run_all([config], [settings_of(config, CgpoSettings)], rows=config.prompts_file)


def run_modpo(config: ModpoConfig) -> None:
    """Align by MODPO, with one weight or several."""
    settings = settings_of(config, ModpoSettings)
    if not config.sweep:
        _run_all([config], [settings], rows=config.pairs_file)
        return
    # All of them before the first is trained.
    swept = [_swept(settings, weight) for weight in config.sweep]
    parts = [
        config.model_copy(
            update={
                "out": config.out / f"w{weight:g}",
                "name": f"{config.name or 'modpo'} w{weight:g}",
            }
        )
        for weight in config.sweep
    ]
    _run_all(parts, swept, rows=config.pairs_file, cache=config.out)


def _swept(settings: ModpoSettings, weight: float) -> ModpoSettings:
    try:
        return settings.swept(weight)
    except ValueError as error:
        raise InvalidRequest(f"--sweep: {error}") from error


def run_mapl(config: MaplPolicyConfig) -> None:
    """Align by MAPL."""
    unused = sorted({"local", "server", "reward_model", "api_key"} & config.model_fields_set)
    if unused and not config.logged:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        told = f"no reward is asked for, so {flags} does nothing; name objectives with --logged"
        print(told, file=sys.stderr)
    _run_all([config], [settings_of(config, MaplSettings)], rows=config.pairs_file)


def run_report(config: ReportConfig) -> None:
    """Draw runs side by side."""
    from steerward.training.align.report.page import write_report

    write_report(
        config.runs,
        config.out,
        objectives=config.objectives or None,
        reference=config.reference,
    )
    print(f"report -> {config.out}")


def _run_all(
    configs: Sequence[AlignConfig],
    settings: Sequence[Any],
    *,
    rows: Path,
    cache: Path | None = None,
) -> None:
    for config, own in zip(configs, settings, strict=True):
        _run(config, own, rows=rows, cache=cache)
    from steerward.training.together import end_together

    end_together()


def _run(config: AlignConfig, settings: Any, *, rows: Path, cache: Path | None = None) -> None:
    from steerward.models.source import resolve_source
    from steerward.training.align.run import AlignRun, align, is_first_process

    for path in (rows, config.validation_file):
        if path is not None and not path.is_file():
            raise NotFound(f"there is no file {path}; name one that is there")
    run = AlignRun(
        settings=settings,
        base=resolve_source(config.base),
        rows=rows,
        out=config.out,
        validation=config.validation_file,
        name=config.name,
        tensorboard=config.tensorboard,
        cache=cache,
        **_adapters_of(config),
    )
    with closing(_Terminal()) as terminal:
        report = align(run, _source(config, settings), terminal)
    if not is_first_process():
        return
    told = ", ".join(f"{name} {value:+.3f}" for name, value in report.rewards.items())
    print(f"policy {report.weight_version} after {report.steps} steps -> {run.policy}")
    if told:
        print(f"held-out prompts: {told}; draw it: steerward align report {run.out}")


def _adapters_of(config: AlignConfig) -> dict[str, Any]:
    """Return what a run is told of the adapters that margins come from."""
    if not isinstance(config, ModpoConfig):
        return {}
    # No shell sees the folders inside of a JSON object.
    folders = {name: folder.expanduser() for name, folder in config.margin_adapters.items()}
    return {"margin_adapters": folders, "margin_beta": config.margin_beta}


def _source(config: AlignConfig, settings: PolicyTraining) -> RewardSource:
    """Return where rewards come from: a model that is loaded here, or a server."""
    if config.local is not None:
        from steerward.models.source import resolve_source
        from steerward.training.align.local_rewards import local_source

        return local_source(resolve_source(config.local))
    return _ServerRewards(config, model=settings.reward_model)


class _ServerRewards:
    """Reward columns of a server's model.

    Args:
        config: Which server.
        model: Its name there; None: the first.
    """

    def __init__(self, config: AlignConfig, *, model: str | None) -> None:
        self._config = config
        self._model = model

    @cached_property
    def version(self) -> str:
        """Of the model's weights, by which numbers are kept."""
        from steerward.clients import Client

        with Client(self._config.server, api_key=self._config.key) as client:
            models = client.models()
            card = client.model(self._model) if self._model else next(iter(models), None)
        if card is None:
            raise NotFound(f"{self._config.server} serves no reward model; start it with one")
        return f"{card.id}@{card.weight_version}"

    def __call__(self, names: Sequence[str]) -> Sequence[Any]:
        """Return a function for each of some objectives; a sample that cannot be scored has None.

        Raises:
            SteerwardError: If the server does not answer, or has no such objective.
        """
        from steerward.clients.trl import reward_funcs

        functions = {
            function.__name__.removeprefix("steerward_"): function
            for function in reward_funcs(
                self._config.server,
                objectives=[name for name in names if name != SCORE],
                score=SCORE in names,
                model=self._model,
                api_key=self._config.key,
                on_error="none",
            )
        }
        return [functions[name] for name in names]


class _Terminal:
    """Shows a run on the terminal: a bar for the steps, a line for each evaluation."""

    def __init__(self) -> None:
        from tqdm import tqdm

        from steerward.training.align.run import is_first_process

        self._bar = tqdm(total=None, unit="step", desc="aligning", disable=not is_first_process())

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        rewards = {
            name.removeprefix("rewards/").removesuffix("/mean"): f"{value:+.3f}"
            for name, value in metrics.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        }
        self._bar.total = steps
        self._bar.n = step
        self._bar.set_postfix(rewards or {"loss": f"{metrics['loss']:.4f}"}, refresh=False)
        self._bar.refresh()

    def measured(self, step: int, rewards: Mapping[str, float]) -> None:
        """Print a line."""
        told = ", ".join(f"{name} {value:+.3f}" for name, value in rewards.items())
        self._bar.write(f"step {step}, held-out prompts: {told}", file=sys.stderr)

    def noted(self, text: str) -> None:
        """Print a line."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
