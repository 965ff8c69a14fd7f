"""PAMA against fixed weights and MGDA: what does the worst of three objectives gain, at what cost?

    python -m benchmarks.pama [--prompts FILE.jsonl.gz] [--out FILE.json] [--plot FILE.png]
        [--work FOLDER]

The policy in the package is trained on three objectives of the reward model in it, `pocket`, of
which helpfulness goes against the others among the start policy's answers. Arms: GRPO with equal
weights on the sum of the rewards, and on the sum of z-scores (GDPO, arXiv:2601.05242); PAMA
(arXiv:2508.07768), the least advantage of each sample; its Gram form, one combination a batch; and
MGDA's shortest combination of full gradients (arXiv:1810.04650; `benchmarks/peers/mgda.py`). All
have the same prompts, samples a step, learning rate and steps. Before anything is trained, equal
objectives are checked to get equal weights and to be left as they are. A folder that is given
keeps the runs, with a report of them; there a benchmark that was stopped goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import main, table
from benchmarks.objective_runs import (
    WEIGHTS_MS,
    Arm,
    TrainingSetting,
    all_folders,
    chosen,
    folder_of,
    train_arms,
)
from benchmarks.objective_tables import draw_curves, gains_table, seeds_table, summarise, told
from benchmarks.peers.mgda import MgdaRun, shortest
from steerward.protocol.alignment import GrpoSettings, PamaSettings
from steerward.training.align.grpo.pama import combine, noon
from steerward.training.align.report.page import write_report

_TOLERANCE = 1e-6
_PAMA = "PAMA"


@dataclass(frozen=True, slots=True)
class Setting(TrainingSetting):
    """What is trained and measured."""

    objectives: str = "helpfulness,harmlessness,-verbosity"
    """Of the reward model; a minus before one means that less is better."""


def arms_of(setting: Setting) -> dict[str, Arm]:
    """Return all ways to train."""
    shared = setting.shared()
    return {
        "sum": Arm(GrpoSettings(aggregation="sum_then_normalize", **shared)),
        "GDPO": Arm(GrpoSettings(aggregation="normalize_then_sum", **shared)),
        _PAMA: Arm(PamaSettings(**shared)),
        "PAMA-batch": Arm(PamaSettings(granularity="batch", **shared)),
        "MGDA": Arm(GrpoSettings(aggregation="mo_grpo", **shared), run=MgdaRun),
    }


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return gains, times and shares of samples by arm, and what they show.

    Raises:
        SystemExit: If an arm is not known, or weights are not what they must be.
    """
    check_weights(num_objectives=len(setting.weights()))
    work = folder_of(setting, work)
    folders = train_arms(setting, chosen(arms_of(setting), setting.arms), work)
    shown = summarise(folders)
    write_report(all_folders(folders), work / "report.html")
    if setting.plot:
        draw_curves(shown, Path(setting.plot))
    return {**shown, "tables": tables_of(shown)}


def check_weights(*, num_objectives: int) -> None:
    """Check that equal objectives get equal weights, and that their combination is any of them.

    Raises:
        SystemExit: If that is not so.
    """
    drawn_NK = torch.randn(64, num_objectives, generator=torch.Generator().manual_seed(0))
    equal_NK = drawn_NK[:, :1].expand_as(drawn_NK)
    even = 1.0 / num_objectives
    errors = {"MGDA": (shortest(equal_NK.T)[0] - even).abs().amax()}
    for granularity in ("sample", "batch"):
        found = combine(noon(equal_NK), granularity=granularity)
        apart = (found.advantages - noon(equal_NK)[:, 0]).abs().amax()
        errors[granularity] = torch.maximum((found.weights - even).abs().amax(), apart)
    least = combine(noon(drawn_NK)).advantages - drawn_NK.clamp(min=0).amin(dim=-1)
    errors["least"] = least.abs().amax()
    for name, error in errors.items():
        # Not `error > tolerance`, which NaN would pass.
        if not float(error) <= _TOLERANCE:
            sys.exit(f"nothing is trained: weights of {name} are off by {float(error):.1e}")


def tables_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the worst objective and the cost of each arm, all gains, and the seeds apart."""
    differences = shown["differences"].get(_PAMA, {})
    rows = [
        [
            arm,
            f"{one['worst']['objective']} {told(one['worst'])}",
            told(differences[arm]) if arm in differences else "",
            f"{100 * one['nonzero']:.0f} %",
            f"{one['cpu_s']:.2f}",
            f"{one[WEIGHTS_MS]:,.1f}",
        ]
        for arm, one in shown["arms"].items()
    ]
    columns = ["", "worst objective's gain", "PAMA's less this", "samples learned from"]
    columns += ["CPU s a step", "CPU ms for weights"]
    title = "the worst objective on held-out prompts, and what a step costs"
    return [table(title, columns, rows), gains_table(shown), seeds_table(shown)]


if __name__ == "__main__":
    main(Setting, run)
