"""What CGPO asks of TRL's settings and of the rows, refused before anything is loaded."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict

from steerward.protocol.errors import DatasetRefused, InvalidRequest, brief
from steerward.training.align.cgpo.tasks import COLUMN, Task, task_places

REFERENCE_BETA = 1e-8
"""TRL builds a reference for any beta above zero; the loss is computed without it."""
REWARD_COLUMN = "baseline_reward"
TEXT_COLUMN = "baseline"
SATISFIED_COLUMN = "baseline_satisfied"


def prepared(args: Any, tasks: Sequence[Task], *, allow_off_policy: bool) -> Any:
    """Return a copy of TRL's settings with which its loss has the gradient of CGPO.

    Args:
        args: A GRPOConfig.
        tasks: Of the run.
        allow_off_policy: Whether CODPO may train on samples of older weights.

    Raises:
        InvalidRequest: If a setting would make it another gradient.
    """
    wanted = {
        "loss_type": ("dr_grpo", "the advantages are scaled for what it divides by"),
        "beta": (0.0, "max_kl of the tasks takes the place of a KL penalty"),
        "mask_truncated_completions": (False, "responses that are cut would count in means"),
        "remove_unused_columns": (False, "judges and tasks read the other columns"),
        "top_entropy_quantile": (1.0, "a likelihood is of every token"),
        "use_liger_kernel": (False, "log-ratios of each sample are needed"),
    }
    for name, (value, reason) in wanted.items():
        if getattr(args, name) != value:
            raise InvalidRequest(
                f"{name} is {brief(repr(getattr(args, name)))}; set it to {value!r}: {reason}",
                param=name,
            )
    reuse = args.steps_per_generation * args.num_iterations
    off_policy = args.gradient_accumulation_steps % reuse != 0
    if off_policy and not allow_off_policy and any(task.optimizer == "codpo" for task in tasks):
        raise InvalidRequest(
            f"num_iterations is {args.num_iterations} and steps_per_generation "
            f"{args.steps_per_generation} with {args.gradient_accumulation_steps} accumulation "
            "steps, so weights change between drawing samples and learning from them. CODPO's "
            "pair would then be weighed by an old log-ratio and clipped sample by sample, which "
            "is no longer its loss; set num_iterations=1 and leave steps_per_generation, or pass "
            "allow_off_policy=True",
            param="num_iterations",
        )
    settings = copy.copy(args)
    settings.beta = REFERENCE_BETA
    return settings


def check_rows(rows: Any, tasks: Sequence[Task]) -> None:
    """Refuse rows that lack a task or what is known of their baseline.

    Args:
        rows: A dataset, several by name, or None.
        tasks: Of the run.

    Raises:
        DatasetRefused: With the column, the row and what to do.
    """
    if rows is None:
        return
    if isinstance(rows, dict | DatasetDict):
        for own in rows.values():
            check_rows(own, tasks)
        return
    if not isinstance(rows, Dataset):
        raise DatasetRefused(
            f"the rows are a {type(rows).__name__}, whose tasks cannot be seen beforehand; give a "
            "datasets.Dataset"
        )
    needed = [COLUMN, REWARD_COLUMN]
    if any(task.optimizer == "crraft" for task in tasks):
        needed += [TEXT_COLUMN, SATISFIED_COLUMN]
    for column in needed:
        if column not in rows.column_names:
            raise DatasetRefused(
                f"the rows have no column {column!r}, only {', '.join(rows.column_names)}; name "
                "each row's task, and add the others with add_baselines"
            )
    places = task_places(list(rows[COLUMN]), tasks)
    for row, reward in enumerate(rows[REWARD_COLUMN]):
        if reward is None or not math.isfinite(reward):
            raise DatasetRefused(f"row {row} has {REWARD_COLUMN} {reward}; score it again")
    if len(needed) == 2:
        return
    found = zip(places, rows[TEXT_COLUMN], rows[SATISFIED_COLUMN], strict=True)
    for row, (place, text, satisfied) in enumerate(found):
        if tasks[place].optimizer == "crraft" and (not isinstance(text, str) or satisfied is None):
            raise DatasetRefused(
                f"row {row} is of task {brief(tasks[place].name)!r}, whose optimizer is crraft, "
                f"and lacks {TEXT_COLUMN} (text) or {SATISFIED_COLUMN} (true or false)"
            )
