"""Rewards of a model that is loaded into this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from steerward.models.checkpoint import load_reward_model
from steerward.models.source import weight_version
from steerward.protocol.alignment import SCORE
from steerward.training.align.columns import RewardSource
from steerward.training.align.grpo.checks import check_known
from steerward.training.align.model_columns import ModelColumns, RewardModelScorer


def local_source(folder: Path) -> RewardSource:
    """Return the columns of a reward model, which is loaded when the first are asked for.

    Args:
        folder: Of the checkpoint.
    """

    def source(names: Sequence[str]) -> Sequence[Any]:
        device = str(PartialState().device)
        model = load_reward_model(str(folder), device=device)
        check_known(
            [name for name in names if name != SCORE], model.objectives.names, param="weights"
        )
        return ModelColumns(RewardModelScorer(model, with_score=SCORE in names), names).functions

    source.version = weight_version(folder)  # pyright: ignore[reportFunctionMemberAccess]
    return source
