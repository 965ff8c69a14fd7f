"""A run of MODPO: pairs, margins and the reference's log-probabilities, then TRL's DPO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from steerward.protocol.alignment import ModpoSettings
from steerward.training.align.columns import Columns, RewardSource, build_columns, column_name
from steerward.training.align.modpo.implicit_rewards import AdapterMargins
from steerward.training.align.modpo.loss import Tradeoff
from steerward.training.align.modpo.margin_sources import ColumnMargins
from steerward.training.align.modpo.margins import MarginSource, with_margins
from steerward.training.align.modpo.reference_trainer import padded_tokenizer, with_reference
from steerward.training.align.modpo.row_margins import has_margins, row_margins
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
        adapters = self._run.margin_adapters
        rest = {name: weight for name, weight in margins.items() if name not in adapters}
        # In the order of the margins of a pair: see `_pairs`.
        order = [*rest, *(name for name in margins if name in adapters)]
        weights = {column_name(name, margins): abs(margins[name]) for name in order}
        brings = any(map(has_margins, self._rows))
        self._brought = row_margins(self._rows, rest, elsewhere=adapters) if brings else None
        # What the rows bring the source need not know.
        asked = {} if brings else rest
        measured = build_columns(source, asked, logged=logged) if asked or logged else None
        return Columns(measured.functions if measured else (), weights)

    def _told(self) -> dict[str, Any]:
        if not self._run.margin_adapters:
            return super()._told()
        return {
            **super()._told(),
            "margin_adapters": self._run.margin_versions(),
            "margin_beta": self._margin_beta,
        }

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

    @property
    def _margin_beta(self) -> float:
        return self._run.margin_beta or self._settings.beta

    def _pairs(self) -> Dataset:
        """Return pairs with their margins: of the rows or the source first, then of adapters."""
        pairs = Dataset.from_list([_record(row) for row in self._rows])
        sources = self._sources()
        if sources:
            # Numbers of a model whose version nobody knows are not kept.
            is_kept = self._version is not None or isinstance(sources[0], AdapterMargins)
            cache = self._cache / "margins.jsonl" if is_kept else None
            pairs = with_margins(pairs, sources, cache=cache)
        return pairs if self._brought is None else _joined(self._brought, pairs)

    def _sources(self) -> list[MarginSource]:
        """Return what computes margins, in their order."""
        weights = self._columns.weights if self._brought is None else {}
        functions = [one for one in self._columns.functions if one.__name__ in weights]
        found: list[MarginSource] = []
        if functions:
            found.append(ColumnMargins(functions, version=self._version or ""))
        if self._run.margin_adapters:
            found.append(self._adapter_margins())
        return found

    def _adapter_margins(self) -> AdapterMargins:
        margins, adapters = self._settings.margins, self._run.margin_adapters
        columns = {name: column_name(name, margins) for name in margins if name in adapters}
        return AdapterMargins(
            self._run.base,
            {column: adapters[name] for name, column in columns.items()},
            beta=self._margin_beta,
            less=[column for name, column in columns.items() if column != name],
            device=self._device,
        )


def _joined(brought: Mapping[str, list[list[float]]], pairs: Dataset) -> Dataset:
    """Return pairs with the margins of their rows before those that they have."""
    for column, rows in brought.items():
        joined = rows
        if column in pairs.column_names:
            joined = [[*row, *more] for row, more in zip(rows, pairs[column], strict=True)]
            pairs = pairs.remove_columns(column)
        pairs = pairs.add_column(column, joined)  # pyright: ignore[reportCallIssue]
    return pairs


def _record(row: PairRow) -> dict[str, Any]:
    return {
        "prompt": [dict(turn) for turn in row.messages],
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": [{"role": "assistant", "content": row.rejected}],
    }
