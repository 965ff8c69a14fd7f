"""Settings of ``steerward align ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from steerward.cli.job_settings import ServerSettings
from steerward.config import POSITIONAL, Settings
from steerward.protocol.alignment import (
    CgpoSettings,
    GrpoSettings,
    ModpoSettings,
    PamaSettings,
    PolicyTraining,
)
from steerward.protocol.mapl import MaplSettings

SettingsT = TypeVar("SettingsT", bound=PolicyTraining)

# Flags are texts; what is on the wire has types.
_LAX = ConfigDict(strict=False)


class AlignConfig(ServerSettings):
    """What the methods of ``steerward align`` share: where rewards come from, and where to."""

    base: str = "pocket-policy"
    """Policy to begin with: a folder, a hub id, or `pocket-policy`."""
    out: Path
    """Folder for the run: logs, checkpoints, evaluations, and the policy at the end. Stopped runs
    go on where they were."""
    name: str | None = None
    """Of the run, in reports; runs of one name differ by their seed. Default: the method."""
    local: str | None = None
    """Reward model to load here, in place of asking a server: a folder, a hub id, or `pocket`."""
    validation_file: Path | None = None
    """Held-out rows. Default: up to a tenth of the others."""

    @model_validator(mode="after")
    def _one_reward_model(self) -> Self:
        if self.local is not None and getattr(self, "reward_model", None) is not None:
            raise ValueError(
                "local loads a reward model here, reward_model names one of a server; leave one out"
            )
        return self

    tensorboard: bool = False
    """Write the logs for TensorBoard as well, into `tensorboard` of the run's folder."""


class _PromptsConfig(AlignConfig):
    prompts_file: Annotated[Path, POSITIONAL]
    """Prompts, JSON lines (also .gz) or Parquet: {"prompt": "..."} or {"messages": [...]} that end
    with a user turn. What judges read stands beside it."""


class GrpoConfig(_PromptsConfig, GrpoSettings):
    """Train a policy with GRPO on several objectives at once.

    TRL's trainer samples a group of answers to each prompt; the reward model's objectives, each a
    column in the log, are made into one advantage as --aggregation says. Rewards come from a
    server, or from a model that is loaded here (--local).

    Examples:
      steerward align grpo prompts.jsonl --local pocket --out runs/grpo
      steerward align grpo prompts.jsonl --out runs/gdpo --steps 200
        --weights '{"helpfulness": 1, "verbosity": -0.5}' --logged harmlessness
      steerward align grpo prompts.jsonl --base ./my-policy --method lora --out runs/lora
      accelerate launch --config_file fsdp.yaml -m steerward align grpo prompts.jsonl --out runs/8
    """

    model_config = _LAX


class PamaConfig(_PromptsConfig, PamaSettings):
    """Train a policy with PAMA: each sample counts as far as its worst objective allows.

    The weights of the objectives in each sample are those of a Pareto step, in closed form
    (arXiv:2508.07768), on GRPO's or RLOO's advantages.

    Examples:
      steerward align pama prompts.jsonl --local pocket --out runs/pama
        --weights '{"helpfulness": 1, "clarity": 1, "verbosity": -1}'
      steerward align pama prompts.jsonl --out runs/soft --softmin-k 2
        --weights '{"helpfulness": 1, "clarity": 1}'
    """

    model_config = _LAX


class CgpoConfig(_PromptsConfig, CgpoSettings):
    """Train a policy with CGPO: a reward that counts where every judge passes.

    A judge reads a completion and what its row holds: answers, keywords, lengths, formats,
    instructions, unit tests, or another model's verdict (arXiv:2409.20370). Tasks, in a TOML file
    or as JSON, have a reward, judges and limits of their own.

    Examples:
      steerward align cgpo prompts.jsonl --local pocket --out runs/cgpo --tasks
        '{"chat": {"judges": [{"type": "length", "maximum": 80}], "optimizer": "crraft"}}'
      steerward align cgpo prompts.jsonl --config tasks.toml --out runs/cgpo
    """

    model_config = _LAX


class ModpoConfig(AlignConfig, ModpoSettings):
    """Train a policy with MODPO: preferences of one objective, the others as margins.

    A reward model, a server, two columns of the rows or adapters that DPO trained on --base give
    the margins, once; then it is DPO (arXiv:2310.03708). Several --sweep weights share them.

    Examples:
      steerward align modpo pairs.jsonl --local pocket --out runs/modpo
        --margins '{"verbosity": -0.5}' --weight 0.5
      steerward align modpo pairs.jsonl --out runs/front --margins '{"harmlessness": 1}'
        --sweep 0.2 --sweep 0.5 --sweep 0.8
      steerward align modpo pairs.jsonl --out runs/brief --margins '{"brevity": 0.5}' --weight 0.5
        --margin-adapters '{"brevity": "runs/dpo/policy"}'
    """

    model_config = _LAX

    pairs_file: Annotated[Path, POSITIONAL]
    """Preference pairs, JSON lines (also .gz) or Parquet: a prompt with `chosen` and `rejected`."""
    sweep: list[float] = []
    """Weight of the preferred objective; repeatable. The margins' weights are scaled to the rest
    of 1, and each weight has a folder of its own below --out."""
    margin_adapters: dict[str, Path] = {}
    """Folder of an adapter that DPO trained on --base, by objective of --margins, whose margins are
    then its implicit rewards; where all have one and --logged names none, no reward model is asked.
    """
    margin_beta: float | None = Field(default=None, gt=0)
    """Of the DPO that trained these adapters. Default: --beta."""


class MaplPolicyConfig(AlignConfig, MaplSettings):
    """Train a policy with MAPL: preferences, and what is built of them with instructions.

    Of preference pairs it builds prompts with instructions that can be checked, of which a response
    follows one better than another, and learns from these rows and the pairs by DPO's loss
    (arXiv:2505.12845). Held-out prompts come with kinds of instructions that it has not seen;
    instructions_followed is the share of them that an answer follows. Rewards are asked for where
    --logged names objectives only. With both weights 0 it is DPO on the pairs.

    Examples:
      steerward align mapl pairs.jsonl --out runs/mapl
      steerward align mapl pairs.jsonl --out runs/mapl --local pocket --logged helpfulness
        --held-out-kinds keywords:existence --held-out-kinds steerward:words_about
      steerward align mapl pairs.jsonl --out runs/dpo --lambda-intra 0 --lambda-inter 0
    """

    model_config = _LAX

    pairs_file: Annotated[Path, POSITIONAL]
    """Preference pairs, JSON lines (also .gz) or Parquet: a prompt with `chosen` and `rejected`."""


class ReportConfig(Settings):
    """Draw runs side by side: fronts, hypervolume, and each objective over the steps.

    Examples:
      steerward align report runs/grpo runs/pama --out report.html
    """

    runs: Annotated[list[Path], POSITIONAL] = Field(min_length=1)
    """Folder of a run."""
    out: Path = Path("report.html")
    """Page to write; its figures lie beside it as JSON."""
    objectives: list[str] = []
    """Column to draw; repeatable. Default: all that the runs have in common."""
    reference: dict[str, float] | None = None
    """JSON object: point that hypervolume is measured from, by column, for numbers that can be
    compared with those of other reports. Default: just below what any run ends with."""


def settings_of(config: AlignConfig, schema: type[SettingsT]) -> SettingsT:
    """Return the optimiser's own settings among those of a command."""
    fields = set(schema.model_fields)
    return schema.model_validate_json(config.model_dump_json(include=fields))
