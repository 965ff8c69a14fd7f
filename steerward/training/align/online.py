"""A run of an optimiser that samples from the policy as it learns: GRPO, PAMA, CGPO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Json, List, Value
from transformers import PreTrainedModel

from steerward.protocol.alignment import CgpoSettings, GrpoSettings, OnlineSettings, PamaSettings
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.columns import Columns, RewardSource, build_columns
from steerward.training.align.constrained import (
    constrained_trainer,
    held_out_measures,
    task_columns,
)
from steerward.training.align.judged import with_rules
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.online_settings import online_arguments
from steerward.training.align.policies import load_policy, positions_of
from steerward.training.align.rows import PromptRow, read_prompts, split_held_out
from steerward.training.align.runner import Runner
from steerward.training.align.trainers import weighted_trainer

_TURNS = List({"role": Value("string"), "content": Value("string")})


class OnlineRun(Runner):
    """A run of GRPO, PAMA or CGPO."""

    @property
    def _settings(self) -> OnlineSettings:
        assert isinstance(self._run.settings, OnlineSettings)
        return self._run.settings

    def _read(self) -> list[PromptRow]:
        rows, num = read_prompts(self._run.rows), self._settings.evaluation_prompts
        if self._run.validation is None:
            self._rows, held_out = split_held_out(rows, num=num)
            return held_out
        self._rows = rows
        return read_prompts(self._run.validation)[:num]

    def _num_rows(self) -> int:
        return len(self._rows)

    def _build_columns(self, source: RewardSource) -> Columns:
        settings = self._settings
        if isinstance(settings, CgpoSettings):
            return task_columns(source, settings)
        assert isinstance(settings, GrpoSettings | PamaSettings)
        joined = with_rules(source, settings.rules)
        return build_columns(joined, settings.weights, logged=settings.logged)

    def _build_measures(self) -> list[RewardFunction]:
        if isinstance(self._settings, CgpoSettings):
            return held_out_measures(self._settings, self._columns)
        return super()._build_measures()

    def _trainer(self, runs: Path) -> Any:
        settings = self._settings
        model = load_policy(self._run.base, settings, self._device)
        self._check_length(model)
        given: dict[str, Any] = {
            "arguments": online_arguments(
                settings, runs, parameters=model.num_parameters(), processes=self._state
            ),
            "model": model,
            "tokenizer": self._tokenizer,
            "rows": as_dataset(self._rows),
            "callbacks": self._tensorboard(),
        }
        if isinstance(settings, CgpoSettings):
            return constrained_trainer(
                settings,
                self._columns,
                folder=self._run.out,
                policy_version=self._base_version,
                **given,
            )
        assert isinstance(settings, GrpoSettings | PamaSettings)
        return weighted_trainer(settings, self._columns, **given)

    def _check_length(self, model: PreTrainedModel) -> None:
        """Refuse prompts that leave no room for a completion; nothing is cut."""
        limit = positions_of(model)
        for row in [*self._rows, *self._held_out]:
            turns = [dict(turn) for turn in row.messages]
            ids: Any = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False
            )
            if len(ids) + self._settings.max_tokens > limit:
                raise DatasetRefused(
                    f"{row.place}: the prompt has {len(ids):,} tokens, and with max_tokens "
                    f"{self._settings.max_tokens:,} that is more than the {limit:,} positions of "
                    "the policy; leave it out, or lower max_tokens"
                )


def as_dataset(rows: Sequence[PromptRow]) -> Dataset:
    """Return rows as TRL takes them; every column but the prompt keeps the shape it has."""
    names = sorted({name for row in rows for name in row.columns})
    records = [
        {
            "prompt": [dict(turn) for turn in row.messages],
            **{name: row.columns.get(name) for name in names},
        }
        for row in rows
    ]
    # Without it, objects of several rows would be given each other's keys.
    features = Features({"prompt": _TURNS, **{name: Json() for name in names}})
    return Dataset.from_list(records, features=features)
