"""``steerward align ...``: rows, and rewards of a server or of a model that is loaded here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerward.cli.align_settings import (
    AlignConfig,
    CgpoConfig,
    GrpoConfig,
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
from steerward.protocol.errors import NotFound

if TYPE_CHECKING:
    from steerward.training.align.columns import RewardSource


def run_grpo(config: GrpoConfig) -> None:
    """Align by multi-objective GRPO."""
    _run(config, settings_of(config, GrpoSettings), rows=config.prompts_file)


def run_pama(config: PamaConfig) -> None:
    """Align by PAMA."""
    _run(config, settings_of(config, PamaSettings), rows=config.prompts_file)


def run_cgpo(config: CgpoConfig) -> None:
    """Align by CGPO."""
    _run(config, settings_of(config, CgpoSettings), rows=config.prompts_file)


def run_modpo(config: ModpoConfig) -> None:
    """Align by MODPO, with one weight or several."""
    settings = settings_of(config, ModpoSettings)
    if not config.sweep:
        _run(config, settings, rows=config.pairs_file)
        return
    for weight in config.sweep:
        name = f"{config.name or 'modpo'} w{weight:g}"
        part = config.model_copy(update={"out": config.out / f"w{weight:g}", "name": name})
        _run(part, settings.swept(weight), rows=config.pairs_file, cache=config.out)


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


def _run(config: AlignConfig, settings: Any, *, rows: Path, cache: Path | None = None) -> None:
    from steerward.models.source import resolve_source
    from steerward.training.align.run import AlignRun, align

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
    )
    with closing(_Terminal()) as terminal:
        report = align(run, _source(config, settings), terminal)
    told = ", ".join(f"{name} {value:+.3f}" for name, value in report.rewards.items())
    print(f"policy {report.weight_version} after {report.steps} steps -> {run.policy}")
    if told:
        print(f"held-out prompts: {told}; draw it: steerward align report {run.out}")


def _source(config: AlignConfig, settings: PolicyTraining) -> RewardSource:
    """Return where rewards come from: a model that is loaded here, or a server."""
    if config.local is not None:
        from steerward.models.source import resolve_source
        from steerward.training.align.local_rewards import local_source

        return local_source(resolve_source(config.local))

    def of_server(names: Sequence[str]) -> Sequence[Any]:
        from steerward.clients.trl import reward_funcs

        functions = {
            function.__name__.removeprefix("steerward_"): function
            for function in reward_funcs(
                config.server,
                objectives=[name for name in names if name != SCORE],
                score=SCORE in names,
                model=settings.reward_model,
                api_key=config.key,
            )
        }
        return [functions[name] for name in names]

    return of_server


class _Terminal:
    """Shows a run on the terminal: a bar for the steps, a line for each evaluation."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=None, unit="step", desc="aligning")

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

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
