"""From settings to CGPO's trainer: tasks with their judges, and rows with their baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from steerward.judges.settings import mixture_from_settings
from steerward.protocol.alignment import CgpoSettings, CgpoTask
from steerward.training.align.cgpo.baselines import (
    add_baselines,
    generated_baselines,
    gold_baselines,
)
from steerward.training.align.cgpo.judging import judge_batch
from steerward.training.align.cgpo.settings import TEXT_COLUMN
from steerward.training.align.cgpo.tasks import COLUMN, Task, task_places, task_rewards
from steerward.training.align.cgpo.trainer import CGPOTrainer
from steerward.training.align.columns import Columns, RewardSource, build_columns
from steerward.training.align.judged import judge_models
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.policies import adapter_of

_BASELINES = "baselines.json"


def task_columns(source: RewardSource, settings: CgpoSettings) -> Columns:
    """Return the rewards of all tasks as columns, and those that are only logged.

    Raises:
        SteerwardError: If the source does not have one.
    """
    rewards = dict.fromkeys((task.reward for task in settings.tasks.values()), 1.0)
    logged = [name for name in settings.logged if name not in rewards]
    return build_columns(source, rewards, logged=logged)


def held_out_measures(settings: CgpoSettings, columns: Columns) -> list[RewardFunction]:
    """Return the columns that held-out prompts are measured by.

    Those are the rewards, each for the prompts of its tasks alone, and `satisfied`: 1 where all
    judges of the row's task pass, 0 else.

    Raises:
        SteerwardError: If judges do not fit.
    """
    tasks = [_task(name, one, settings, columns) for name, one in settings.tasks.items()]
    return [*task_rewards(columns.functions, tasks), _satisfied_column(tasks)]


def _satisfied_column(tasks: Sequence[Task]) -> RewardFunction:
    def satisfied(
        prompts: Sequence[Any], completions: Sequence[Any], **given: Any
    ) -> list[float | None]:
        names = given.get(COLUMN) or [tasks[0].name if len(tasks) == 1 else None] * len(prompts)
        rows = [{name: values[i] for name, values in given.items()} for i in range(len(prompts))]
        found = judge_batch(
            tasks, task_places(names, tasks), prompts=prompts, completions=completions, rows=rows
        )
        return [float(passes) for passes in found.satisfied]

    return satisfied


def constrained_trainer(
    settings: CgpoSettings,
    columns: Columns,
    *,
    folder: Path,
    policy_version: str,
    arguments: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    callbacks: Sequence[Any],
) -> Any:
    """Return the trainer of CGPO.

    Args:
        settings: Of the run.
        columns: Of the rewards.
        folder: Of the run, where generated baselines are kept.
        policy_version: Of the weights at the start.
        arguments: For GRPOConfig.
        model: That learns, as it is at the start.
        tokenizer: Of it.
        rows: With `prompt`, and what judges read.
        callbacks: Of the trainer.

    Raises:
        SteerwardError: If judges, tasks and rows do not fit together.
    """
    tasks = [_task(name, one, settings, columns) for name, one in settings.tasks.items()]
    if COLUMN not in rows.column_names and len(tasks) == 1:
        rows = rows.add_column(COLUMN, [tasks[0].name] * len(rows))  # pyright: ignore
    texts = _baselines(
        settings,
        folder,
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        policy_version=policy_version,
    )
    rows = add_baselines(rows, texts, tasks=tasks, reward_funcs=columns.functions)
    return CGPOTrainer(
        model,
        list(columns.functions),
        tasks=tasks,
        args=GRPOConfig(**{**arguments, "loss_type": "dr_grpo", "remove_unused_columns": False}),
        train_dataset=rows,
        max_missing=settings.max_missing_share,
        max_violated_batches=settings.max_idle_steps,
        processing_class=tokenizer,
        peft_config=adapter_of(settings),
        callbacks=list(callbacks),
    )


def _task(name: str, given: CgpoTask, settings: CgpoSettings, columns: Columns) -> Task:
    functions = {function.__name__: function for function in columns.functions}
    judges = mixture_from_settings(
        {"judges": given.judges, "max_failure_rate": settings.max_failure_rate},
        columns=functions,
        models=judge_models(given.judges),
    )
    return Task(
        name=name,
        reward=given.reward,
        judges=judges if given.judges else None,
        optimizer=given.optimizer,
        max_kl=given.max_kl,
        beta=given.beta,
        likelihood_weight=given.likelihood_weight,
        weight=given.weight,
        num_samples=given.num_samples,
        share=given.share,
    )


def _baselines(
    settings: CgpoSettings,
    folder: Path,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    policy_version: str,
) -> list[str]:
    if settings.baseline == "row":
        return gold_baselines(rows, column=TEXT_COLUMN)
    state = PartialState()
    model.to(state.device)  # pyright: ignore[reportArgumentType] (stub of another method)
    with state.main_process_first():
        return generated_baselines(
            model,
            tokenizer,
            list(rows["prompt"]),
            seed=settings.seed,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            policy_version=policy_version,
            path=folder / _BASELINES,
        )
