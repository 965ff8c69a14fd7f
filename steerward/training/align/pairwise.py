"""A run of MODPO: pairs, margins and the reference's log-probabilities, then TRL's DPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from steerward.protocol.alignment import ModpoSettings
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.columns import Columns, RewardSource, build_columns, column_name
from steerward.training.align.modpo.loss import Tradeoff
from steerward.training.align.modpo.margin_sources import ColumnMargins
from steerward.training.align.modpo.margins import SIDES, with_margins
from steerward.training.align.modpo.reference_trainer import padded_tokenizer, with_reference
from steerward.training.align.modpo.trainer import MODPOTrainer, modpo_config
from steerward.training.align.policies import adapter_of, load_policy
from steerward.training.align.preference import CountsOn, PreferenceRun
from steerward.training.align.rows import PairRow

_OWN = "preferred"
"""Name of the objective that the pairs prefer by."""


class PairwiseRun(PreferenceRun):
    """A run of MODPO."""

    @property
    def _settings(self) -> ModpoSettings:
        assert isinstance(self._run.settings, ModpoSettings)
        return self._run.settings

    def _build_columns(self, source: RewardSource) -> Columns:
        self._version: str | None = getattr(source, "version", None)
        margins, logged = self._settings.margins, self._settings.logged
        if not any(_own_margins(row) for row in self._rows):
            return build_columns(source, margins, logged=logged)
        # The rows know these objectives; the source need not.
        measured = build_columns(source, {}, logged=logged) if logged else Columns((), {})
        weights = {column_name(name, margins): abs(weight) for name, weight in margins.items()}
        return Columns(measured.functions, weights)

    def _trainer(self, runs: Path) -> Any:
        model = load_policy(self._run.base, self._settings, self._device)
        self._check_length(model)
        training = {
            **self._training(runs, parameters=model.num_parameters(), num_rows=len(self._rows)),
            "loss_type": [self._settings.loss],
        }
        with self._state.main_process_first():
            pairs = self._pairs()
        # Processes meet in there: none may wait outside.
        pairs = with_reference(
            pairs,
            policy=self._run.base,
            training=training,
            cache=self._cache / "reference.safetensors",
        )
        trainer = MODPOTrainer(
            tradeoff=self._tradeoff(),
            args=modpo_config(runs, training),
            train_dataset=pairs,
            model=model,
            processing_class=padded_tokenizer(self._run.base),
            peft_config=adapter_of(self._settings),
            callbacks=self._tensorboard(),
        )
        trainer.add_callback(CountsOn(trainer))
        return trainer

    @property
    def _cache(self) -> Path:
        return self._run.cache or self._run.out

    def _tradeoff(self) -> Tradeoff:
        weights = self._columns.weights
        return Tradeoff((_OWN, *weights), (self._settings.weight, *weights.values()))

    def _pairs(self) -> Dataset:
        """Return pairs with their margins: those of the rows, or computed."""
        records = [_record(row) for row in self._rows]
        if any(_own_margins(row) for row in self._rows):
            return Dataset.from_list(
                [
                    record | _margins(row, place, self._settings.margins)
                    for place, (record, row) in enumerate(zip(records, self._rows, strict=True))
                ]
            )
        names = set(self._columns.weights)
        functions = [one for one in self._columns.functions if one.__name__ in names]
        return with_margins(
            Dataset.from_list(records),
            [ColumnMargins(functions, version=self._version or "")],
            # Numbers of a model whose version nobody knows are not kept.
            cache=self._cache / "margins.jsonl" if self._version is not None else None,
        )


def _record(row: PairRow) -> dict[str, Any]:
    return {
        "prompt": [dict(turn) for turn in row.messages],
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": [{"role": "assistant", "content": row.rejected}],
    }


def _own_margins(row: PairRow) -> bool:
    return any(column in row.columns for column in SIDES.values())


def _margins(row: PairRow, place: int, weights: Mapping[str, float]) -> dict[str, list[Any]]:
    """Return the margins that a row brings; where less is better, with the other sign.

    Raises:
        DatasetRefused: If it lacks some.
    """
    found: dict[str, list[Any]] = {}
    for column in SIDES.values():
        values = _listed(row.columns.get(column), list(weights))
        if len(values) != len(weights) or not all(_is_number(value) for value in values):
            raise DatasetRefused(
                f"pair {place} has {column} {values}, and the margins are {', '.join(weights)}; "
                "give a number for each in every pair, or leave the columns out of all"
            )
        signs = [-1.0 if weight < 0 else 1.0 for weight in weights.values()]
        found[column] = [sign * float(value) for sign, value in zip(signs, values, strict=True)]
    return found


def _listed(value: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(value, Mapping):
        return [value.get(name) for name in names]
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
