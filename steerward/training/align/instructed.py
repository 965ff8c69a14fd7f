"""A run of MAPL: pairs, and rows with instructions that are built of them, then TRL's DPO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from trl.trainer.dpo_config import DPOConfig

from steerward.models.chat import ChatEncoder
from steerward.protocol.errors import DatasetRefused
from steerward.protocol.mapl import MaplSettings
from steerward.training.align.columns import Columns, RewardSource, build_columns
from steerward.training.align.mapl.asked import asked_kinds, asked_prompts, followed_column
from steerward.training.align.mapl.batch import Encoded, Encoder, encode_rows
from steerward.training.align.mapl.data import (
    UNDRAWN,
    build_as_set,
    in_twos,
    parts_of,
    split_kinds,
    write_built,
)
from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from steerward.training.align.mapl.rows import rows_digest
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
            settings.held_out_kinds, share=settings.held_out_kinds_share, never=UNDRAWN
        )
        held_out = super()._read()
        self._built = build_as_set(
            self._rows, settings, kinds=self._kinds, parts=parts_of(settings)
        )
        return held_out

    def _prompts(self, pairs: Sequence[PairRow]) -> list[PromptRow]:
        settings = self._settings
        prompts = asked_prompts(
            pairs,
            kinds=self._kinds_out,
            sizes=(settings.min_instructions, settings.max_instructions),
            max_tokens=settings.max_tokens,
        )
        self._prompts_left_out = len(pairs) - len(prompts)
        return prompts

    def _work_identity(self) -> str:
        """Return what a checkpoint must be of: another version may draw other instructions."""
        built = rows_digest([*self._built.intra, *self._built.inter])
        told = json.dumps([super()._work_identity(), self._kinds_out, built])
        return hashlib.sha256(told.encode()).hexdigest()

    def _num_rows(self) -> int | dict[str, int]:
        return self._encoded.counts

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
            "asked_kinds": asked_kinds(self._held_out),
            "pairs": len(self._rows),
            "pairs_left_out": dict(self._built.left_out),
            "held_out_prompts_left_out": self._prompts_left_out,
        }

    def _notes(self, trainer: Any) -> dict[str, Any]:
        told = ", ".join(f"{num} {name}" for name, num in self._encoded.counts.items())
        over = self._encoded.left_out
        return {**super()._notes(trainer), "rows": f"{told} ({over} too long, left out)"}

    def _trainer(self, runs: Path) -> Any:
        settings = self._settings
        model = load_policy(self._run.base, settings, self._device)
        self._check_length(model)
        self._encoded = self._encode(model)
        trainer = MaplDPOTrainer(
            lambda_intra=settings.lambda_intra,
            lambda_inter=settings.lambda_inter,
            args=DPOConfig(
                output_dir=str(runs), **self._whole_batches(runs, model.num_parameters())
            ),
            train_dataset=self._encoded.dataset,
            model=model,
            processing_class=padded_tokenizer(self._run.base),
            peft_config=adapter_of(settings),
            callbacks=self._tensorboard(),
        )
        trainer.add_callback(CountsOn(trainer))
        if self._state.is_main_process:
            write_built(self._run.out, self._built, name="train")
        return trainer

    def _whole_batches(self, runs: Path, parameters: int) -> dict[str, Any]:
        """Return TRL's settings without a small batch at the end, which would count as a whole."""
        num, batch = len(self._encoded.dataset), self._settings.batch_size
        is_enough = num >= batch
        rows = num - num % batch if is_enough else num
        training = self._training(runs, parameters=parameters, num_rows=rows)
        return {**training, "dataloader_drop_last": is_enough}

    def _check_length(self, model: PreTrainedModel) -> None:
        """Refuse held-out prompts that leave no room for an answer, too; nothing is cut."""
        super()._check_length(model)
        limit, most = positions_of(model), self._settings.max_tokens
        for row in self._held_out:
            turns = [dict(turn) for turn in row.messages]
            ids: Any = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False
            )
            if len(ids) + most > limit:
                raise DatasetRefused(
                    f"{row.place}: the held-out prompt has {len(ids):,} tokens with its "
                    f"instructions, and with max_tokens {most:,} that is more than the {limit:,} "
                    "positions of the policy; leave it out, or lower max_tokens or "
                    "max_instructions"
                )

    def _encode(self, model: PreTrainedModel) -> Encoded:
        """Return the rows as the policy reads them; pairs are whole, built ones may be too long."""
        tokenizer = padded_tokenizer(self._run.base)
        encoder = Encoder(
            ChatEncoder(tokenizer),
            max_tokens=positions_of(model),
            end_tokens=end_tokens(model, tokenizer),
        )
        rows = [*self._rows, *in_twos(self._built.intra), *in_twos(self._built.inter)]
        return encode_rows(rows, encoder)
