"""GRPO on four objectives at once: do all of them rise, and how evenly?

    python -m benchmarks.grpo_objectives [--prompts FILE.jsonl.gz] [--out FILE.json]
        [--plot FILE.png] [--work FOLDER]

The policy in the package is trained on four objectives of the reward model in it, `pocket`, with
equal weights. Two ways make one advantage of four rewards: `sum_then_normalize` standardises their
sum, so that the rewards with the largest spread decide; GDPO (arXiv:2601.05242) standardises each
before the sum. Before anything is trained, both are compared with TRL's own tensors on a batch.
Before, after, and every few steps the policy answers held-out prompts. The default objectives do
not conflict among the start policy's answers to one prompt, so that all can rise; for some that do
see `benchmarks.pama`. A folder that is given keeps the runs, with a report of them; there a
benchmark that was stopped goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.command import main, table
from benchmarks.objective_runs import (
    Arm,
    TimedRun,
    TrainingSetting,
    all_folders,
    chosen,
    folder_of,
    train_arms,
    write_prompts,
)
from benchmarks.objective_tables import draw_curves, gains_table, seeds_table, summarise, told
from steerward.models.source import resolve_source
from steerward.protocol.alignment import GrpoSettings
from steerward.training.align.local_rewards import local_source
from steerward.training.align.report.page import write_report
from steerward.training.align.run import AlignRun

# By arm, what both we and TRL call it.
ARMS = {"sum": "sum_then_normalize", "GDPO": "normalize_then_sum"}


@dataclass(frozen=True, slots=True)
class Setting(TrainingSetting):
    """What is trained and measured."""

    objectives: str = "helpfulness,truthfulness,clarity,compliance"
    """Of the reward model; a minus before one means that less is better."""


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return the gain of every objective by arm, and what it shows.

    Raises:
        SystemExit: If an arm is not known, or its advantages are not TRL's.
    """
    work = folder_of(setting, work)
    arms = chosen(
        {
            name: Arm(GrpoSettings(aggregation=aggregation, **setting.shared()))  # pyright: ignore[reportArgumentType]
            for name, aggregation in ARMS.items()
        },
        setting.arms,
    )
    for name in arms:
        _check(setting, name, work)
    folders = train_arms(setting, arms, work)
    shown = summarise(folders)
    write_report(all_folders(folders), work / "report.html")
    if setting.plot:
        draw_curves(shown, Path(setting.plot))
    return {**shown, "tables": tables_of(shown)}


def _check(setting: Setting, name: str, work: Path) -> None:
    found = difference_from_trl(setting, ARMS[name], work)
    if found != 0.0:
        sys.exit(f"nothing is trained: advantages of {name} differ from TRL's by {found:.1e}")


def difference_from_trl(setting: Setting, aggregation: str, work: Path) -> float:
    """Return the largest difference of our advantages from TRL's, of the same small batch."""
    rows, _ = write_prompts(setting, work)
    given = {**setting.shared(), "prompts_per_step": 2, "max_tokens": 8, "steps": 1}
    small = AlignRun(
        GrpoSettings(aggregation=aggregation, **given),  # pyright: ignore[reportArgumentType]
        resolve_source(setting.policy),
        rows,
        work / "checked",
    )
    source = local_source(resolve_source(setting.reward_model))
    trainer = TimedRun(small, source, None)._trainer(work / "checked")
    trainer.multi_objective_aggregation = aggregation
    trainer.model.train()
    inputs = next(iter(trainer.get_train_dataloader()))
    torch.manual_seed(0)
    ours = trainer._generate_and_score_completions(inputs)["advantages"]
    torch.manual_seed(0)
    theirs = GRPOTrainer._generate_and_score_completions(trainer, inputs)["advantages"]
    if not bool(ours.any()):
        sys.exit("nothing is trained: the batch that is compared with TRL has no advantages")
    return float((ours - theirs).abs().amax())


def tables_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the gains, whether all rise, and the seeds apart."""
    count = len(shown["objectives"])
    rows = [
        [
            arm,
            f"{sum(found[-1]['mean'] > 0 for found in one['gains'].values())} of {count}",
            f"{sum(found[-1]['low'] > 0 for found in one['gains'].values())} of {count}",
            f"{one['worst']['objective']} {told(one['worst'])}",
            f"{one['cpu_s']:.2f}",
        ]
        for arm, one in shown["arms"].items()
    ]
    columns = ["", "objectives risen", "beyond the interval", "least gain", "CPU s a step"]
    return [gains_table(shown), table("do all rise?", columns, rows), seeds_table(shown)]


if __name__ == "__main__":
    main(Setting, run)
