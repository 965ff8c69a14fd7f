"""What runs on preference pairs have in common: the pairs, their lengths, and TRL's DPO."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState

from steerward.protocol.alignment import ModpoSettings
from steerward.protocol.errors import DatasetRefused
from steerward.protocol.mapl import MaplSettings
from steerward.training.align.online_settings import micro_batch, shared_arguments
from steerward.training.align.policies import positions_of
from steerward.training.align.rows import PairRow, PromptRow, read_pairs, split_held_out
from steerward.training.align.runner import Runner


class PreferenceRun(Runner):
    """A run on preference pairs, by a loss of DPO's family."""

    @property
    @abstractmethod
    def _settings(self) -> ModpoSettings | MaplSettings:
        """The settings of the run."""

    def _read(self) -> list[PromptRow]:
        rows, num = read_pairs(self._run.rows), self._settings.evaluation_prompts
        if self._run.validation is None:
            self._rows, held_out = split_held_out(rows, num=num)
        else:
            self._rows, held_out = rows, read_pairs(self._run.validation)[:num]
        return self._prompts(held_out)

    def _prompts(self, pairs: Sequence[PairRow]) -> list[PromptRow]:
        """Return the prompts of held-out pairs, as the policy is to answer them."""
        return [PromptRow(row.messages, row.columns, row.place) for row in pairs]

    def _num_rows(self) -> int | dict[str, int]:
        return len(self._rows)

    def _check_length(self, model: PreTrainedModel) -> None:
        """Refuse pairs that the policy cannot read whole; nothing is cut."""
        limit = positions_of(model)
        for row in self._rows:
            for side, response in (("chosen", row.chosen), ("rejected", row.rejected)):
                turns = [*map(dict, row.messages), {"role": "assistant", "content": response}]
                ids: Any = self._tokenizer.apply_chat_template(turns, return_dict=False)
                if len(ids) > limit:
                    raise DatasetRefused(
                        f"{row.place}: the pair has {len(ids):,} tokens with what is {side}, and "
                        f"the policy reads {limit:,}; leave it out"
                    )

    def _training(self, runs: Path, *, parameters: int, num_rows: int) -> dict[str, Any]:
        """Return what TRL's `DPOConfig` is given, but for the folder."""
        settings, processes = self._settings, self._state
        micro = micro_batch(settings, settings.batch_size, processes.num_processes)
        batches = -(-num_rows * settings.epochs // settings.batch_size)
        arguments = shared_arguments(settings, runs, parameters=parameters, processes=processes)
        del arguments["output_dir"]
        return {
            **arguments,
            "beta": settings.beta,
            "num_train_epochs": settings.epochs,
            "warmup_steps": int(settings.warmup_share * batches),
            "save_steps": settings.checkpoint_steps,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": settings.batch_size // (micro * processes.num_processes),
            "max_length": None,
        }


class CountsOn(TrainerCallback):
    """Lets TRL's count of tokens go on where a run was broken off; it begins with each process.

    Args:
        trainer: Of TRL's, whose log has `num_tokens`.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer: Any = trainer

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Take up what the checkpoint logged last."""
        del args
        logged = [int(entry["num_tokens"]) for entry in state.log_history if "num_tokens" in entry]
        self._trainer._total_train_tokens = logged[-1] if logged else 0
