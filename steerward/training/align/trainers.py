"""From settings to a trainer of TRL: which aggregation, which tasks, which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.rloo_config import RLOOConfig

from steerward.protocol.alignment import GrpoSettings, PamaSettings
from steerward.training.align.columns import Columns, column_name
from steerward.training.align.grpo import aggregation as ways
from steerward.training.align.grpo.conditions import Condition
from steerward.training.align.grpo.schedules import Cosine, Linear, Schedule
from steerward.training.align.grpo.trainer import (
    MultiObjectiveGRPOTrainer,
    MultiObjectiveRLOOTrainer,
)
from steerward.training.align.policies import adapter_of


def weighted_trainer(
    settings: GrpoSettings | PamaSettings,
    columns: Columns,
    *,
    arguments: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    callbacks: Sequence[Any],
) -> Any:
    """Return the trainer of GRPO and PAMA.

    Args:
        settings: Of the run.
        columns: Of the rewards.
        arguments: For GRPOConfig or RLOOConfig.
        model: That learns.
        tokenizer: Of it.
        rows: With `prompt`.
        callbacks: Of the trainer.
    """
    is_rloo = settings.estimator == "rloo"
    kind = MultiObjectiveRLOOTrainer if is_rloo else MultiObjectiveGRPOTrainer
    config = RLOOConfig if is_rloo else GRPOConfig
    is_grpo = isinstance(settings, GrpoSettings)
    return kind(
        model=model,
        reward_funcs=list(columns.functions),
        args=config(**arguments),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=adapter_of(settings),
        callbacks=list(callbacks),
        aggregation=aggregation_of(settings),
        weights={name: columns.weights.get(name, 0.0) for name in columns.names},
        schedule=_schedule(settings) if is_grpo else None,
        conditions=_conditions(settings) if is_grpo else (),
        max_missing=settings.max_missing_share,
        max_constant_steps=settings.max_idle_steps,
        diagnostic_every=0 if is_grpo else settings.diagnostic_steps or 0,
    )


def aggregation_of(settings: GrpoSettings | PamaSettings) -> ways.Aggregation:
    """Return how settings make one advantage of several rewards."""
    weights = [abs(weight) for weight in settings.weights.values()]
    differ = len(set(weights)) > 1
    if isinstance(settings, PamaSettings):
        if settings.softmin_k is not None:
            return ways.SoftMin(
                sharpness=settings.softmin_k, noon=settings.noon, scaling=settings.standardise
            )
        kind = ways.Min if settings.granularity == "sample" else ways.Gram
        return kind(noon=settings.noon, divide_by_weights=differ, scaling=settings.standardise)
    # On the way from one set of weights to another they may differ, whatever the ends are.
    return _of_grpo(settings, weights_differ=differ or settings.final_weights is not None)


def _of_grpo(settings: GrpoSettings, *, weights_differ: bool) -> ways.Aggregation:
    scaling = settings.scaling
    match settings.aggregation:
        case "sum_then_normalize":
            return ways.SumThenNormalize(scaling=scaling)
        case "normalize_then_sum" | "mo_grpo":
            whiten = settings.aggregation == "normalize_then_sum"
            return ways.NormalizeThenSum(whiten=whiten, scaling=scaling)
        case "softmin":
            return ways.SoftMin(sharpness=settings.softmin_k, scaling=scaling)
        case "min":
            return ways.Min(noon=False, divide_by_weights=weights_differ, scaling=scaling)


def _schedule(settings: GrpoSettings) -> dict[str, Schedule]:
    """Return factors that lead from the first weights to the last."""
    kind = Linear if settings.weight_schedule == "linear" else Cosine
    return {
        column_name(name, settings.weights): kind(1.0, last / settings.weights[name])
        for name, last in (settings.final_weights or {}).items()
    }


def _conditions(settings: GrpoSettings) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            column=column_name(one.objective, settings.weights),
            on=column_name(one.needs, settings.weights),
            threshold=one.at_least,
        )
        for one in settings.conditions
    )
