"""A run of MAPL: pairs, and rows with instructions that are built of them, then TRL's DPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel
from trl.trainer.dpo_config import DPOConfig

from steerward.models.chat import ChatEncoder
from steerward.protocol.alignment import MaplSettings
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.columns import Columns, RewardSource, build_columns
from steerward.training.align.mapl.asked import asked_prompts, followed_column
from steerward.training.align.mapl.batch import Encoder, encode_rows
from steerward.training.align.mapl.data import BuiltRows, build_rows, split_kinds
from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from steerward.training.align.mapl.loss import PARTS
from steerward.training.align.mapl.rows import InterRow, IntraRow
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.modpo.reference_trainer import padded_tokenizer
from steerward.training.align.policies import adapter_of, load_policy, positions_of
from steerward.training.align.preference import CountsOn, PreferenceRun
from steerward.training.align.rows import PairRow, PromptRow
from steerward.training.sft_policy import end_tokens


class InstructedRun(PreferenceRun):
    """A run of MAPL."""

    @property
    def _settings(self) -> MaplSettings:
        assert isinstance(self._run.settings, MaplSettings)
        return self._run.settings

    def _read(self) -> list[PromptRow]:
        settings = self._settings
        # Of one seed: runs of all seeds are measured by the same kinds.
        self._kinds, self._kinds_out = split_kinds(
            settings.held_out_kinds, share=settings.held_out_kinds_share
        )
        held_out = super()._read()
        self._built = self._build()
        self._parts: list[PairRow | IntraRow | InterRow] = [
            *self._rows,
            *(self._built.intra if settings.lambda_intra else []),
            *(self._built.inter if settings.lambda_inter else []),
        ]
        return held_out

    def _prompts(self, pairs: Sequence[PairRow]) -> list[PromptRow]:
        prompts = asked_prompts(pairs, kinds=self._kinds_out, sizes=self._sizes)
        self._prompts_left_out = len(pairs) - len(prompts)
        return prompts

    @property
    def _sizes(self) -> tuple[int, int]:
        return self._settings.min_instructions, self._settings.max_instructions

    def _build(self) -> BuiltRows:
        settings = self._settings
        if not settings.lambda_intra and not settings.lambda_inter:
            return BuiltRows([], [])
        return build_rows(
            self._rows,
            kinds=self._kinds,
            sizes=self._sizes,
            seed=settings.seed,
            min_share=settings.min_rows_share,
        )

    def _num_rows(self) -> int:
        return len(self._parts)

    def _build_columns(self, source: RewardSource) -> Columns:
        logged = self._settings.logged
        return build_columns(source, {}, logged=logged) if logged else Columns((), {})

    def _build_measures(self) -> list[RewardFunction]:
        return [*super()._build_measures(), followed_column()]

    def _told(self) -> dict[str, Any]:
        return {
            **super()._told(),
            "kinds": self._kinds,
            "held_out_kinds": self._kinds_out,
            "pairs": len(self._rows),
            "pairs_left_out": dict(self._built.left_out),
            "held_out_prompts_left_out": self._prompts_left_out,
        }

    def _notes(self, trainer: Any) -> dict[str, Any]:
        rows = Counter(trainer.train_dataset["part"])
        told = ", ".join(f"{rows[part]} {name}" for part, name in enumerate(PARTS))
        over = self._num_rows() - len(trainer.train_dataset)
        return {**super()._notes(trainer), "rows": f"{told} ({over} too long, left out)"}

    def _trainer(self, runs: Path) -> Any:
        settings = self._settings
        model = load_policy(self._run.base, settings, self._device)
        self._check_length(model)
        rows = self._encoded(model)
        training = self._training(runs, parameters=model.num_parameters(), num_rows=len(rows))
        trainer = MaplDPOTrainer(
            lambda_intra=settings.lambda_intra,
            lambda_inter=settings.lambda_inter,
            args=DPOConfig(output_dir=str(runs), **training),
            train_dataset=rows,
            model=model,
            processing_class=padded_tokenizer(self._run.base),
            peft_config=adapter_of(settings),
            callbacks=self._tensorboard(),
        )
        trainer.add_callback(CountsOn(trainer))
        return trainer

    def _check_length(self, model: PreTrainedModel) -> None:
        """Refuse held-out prompts that leave no room for an answer, too; nothing is cut."""
        super()._check_length(model)
        limit, most = positions_of(model), self._settings.max_tokens
        for place, row in enumerate(self._held_out):
            turns = [dict(turn) for turn in row.messages]
            ids: Any = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False
            )
            if len(ids) + most > limit:
                raise DatasetRefused(
                    f"held-out prompt {place} has {len(ids):,} tokens with its instructions, and "
                    f"with max_tokens {most:,} that is more than the {limit:,} positions of the "
                    "policy; leave it out, or lower max_tokens or max_instructions"
                )

    def _encoded(self, model: PreTrainedModel) -> Dataset:
        """Return the rows as the policy reads them; pairs are whole, built ones may be too long."""
        tokenizer = padded_tokenizer(self._run.base)
        encoder = Encoder(
            ChatEncoder(tokenizer),
            max_tokens=positions_of(model),
            end_tokens=end_tokens(model, tokenizer),
        )
        return encode_rows(self._parts, encoder).dataset
