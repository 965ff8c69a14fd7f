"""A reward model trained by MAPL, from pairs to the folder of a run.

    settings.json, log.jsonl, evaluations.jsonl    as of every run; see `run_folder`
    rows/          what was built of the pairs, to learn from and to measure on
    checkpoints/   until the run is finished
    model/         the result

A run that is broken off goes on from its last complete checkpoint and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, PrinterCallback

from steerward.models.chat import ChatEncoder
from steerward.models.pretrained import load_tokenizer, read_config
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.errors import CheckpointRefused, DatasetRefused
from steerward.training.align.mapl.batch import Encoded, Encoder, encode_rows
from steerward.training.align.mapl.data import (
    build_as_set,
    in_twos,
    parts_of,
    split_kinds,
    write_built,
)
from steerward.training.align.mapl.evaluate import COLUMNS, HeldOutRows
from steerward.training.align.mapl.model import (
    adapter_of,
    load_reward_model,
    padding_token,
    save_reward_model,
)
from steerward.training.align.mapl.progress import Progress
from steerward.training.align.mapl.reward_trainer import MaplRewardTrainer
from steerward.training.align.mapl.rows import rows_digest
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.mapl.trainer_settings import trainer_settings
from steerward.training.align.rows import PairRow, read_pairs
from steerward.training.align.run_folder import SETTINGS_FILE, RunWriter, read_settings
from steerward.training.files import file_digest
from steerward.training.sft_folder import complete_checkpoint

Told = Callable[[int, dict[str, float]], None]
"""Called with the number of a step and what is logged of it, in the first process."""

MODEL_FOLDER = "model"
_CHECKPOINTS = "checkpoints"
# Change no weight, or their content is compared, wherever it lies.
_FREE_TO_CHANGE = {
    *("out", "checkpoint_steps", "evaluation_steps", "logging_steps", "report_to"),
    *("pairs", "start"),
}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What training needs."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    padding: int
    encoded: Encoded
    held_out: HeldOutRows
    rows_digest: str
    """Of what was built, to learn from and to measure on."""
    told: dict[str, Any]
    """About the rows, for the settings of the run."""


def train_mapl(settings: MaplConfig, *, told: Told | None = None) -> Path:
    """Train a reward model as settings say, and return the folder of the run.

    A finished run of the same settings is returned as it is.

    Args:
        settings: What is given.
        told: Called with each line of the log, in the first process.

    Raises:
        SteerwardError: If files or settings do not fit, too few rows can be built, the folder holds
            another run, or the loss is no number.
    """
    folder = resolve_source(settings.start)
    identity = _identity(settings, folder)
    if _is_finished(settings.out, identity):
        return settings.out
    prepared = _prepare(settings, folder)
    state = PartialState()
    runs = settings.out / _CHECKPOINTS
    # Another version may draw other instructions.
    work = hashlib.sha256(f"{identity} {prepared.rows_digest}".encode()).hexdigest()
    with state.main_process_first():
        checkpoint = complete_checkpoint(runs, identity=work)
    # Before the folder is this run's: one that is refused may come again with other settings.
    trainer = _trainer(settings, prepared, runs)
    described = _described(settings, prepared, identity)
    writer = RunWriter(settings.out, described) if state.is_main_process else None
    if writer is not None:
        writer.drop_after(int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1)
    # Standard output is the caller's.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(writer, prepared.held_out, settings, work, told))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # All processes give their part of the weights; one writes.
    weights: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if state.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        out = settings.out / MODEL_FOLDER
        save_reward_model(model, prepared.tokenizer, out, state=weights)
        shutil.rmtree(runs, ignore_errors=True)
    state.wait_for_everyone()
    return settings.out


def hold_out(
    pairs: Sequence[PairRow], *, share: float, seed: int
) -> tuple[list[PairRow], list[PairRow]]:
    """Return the pairs to learn from, and those held out: whole prompts, drawn by the seed.

    Raises:
        DatasetRefused: If either is left with none.
    """
    prompts = list(dict.fromkeys(_prompt_of(pair) for pair in pairs))
    out = set(random.Random(seed).sample(prompts, round(share * len(prompts))))
    learned = [pair for pair in pairs if _prompt_of(pair) not in out]
    measured = [pair for pair in pairs if _prompt_of(pair) in out]
    if not learned or not measured:
        raise DatasetRefused(
            f"of {len(prompts)} prompts, {len(out)} are held out, and neither may be all or none; "
            "give more pairs, or another held_out_share"
        )
    return learned, measured


def _prompt_of(pair: PairRow) -> tuple[str, ...]:
    return tuple(turn["content"] for turn in pair.messages)


def _prepare(settings: MaplConfig, folder: Path) -> _Prepared:
    pairs = [pair for path in settings.pairs for pair in read_pairs(path)]
    learned, measured = hold_out(pairs, share=settings.held_out_share, seed=settings.seed)
    kinds, kinds_out = split_kinds(
        settings.held_out_kinds, share=settings.held_out_kinds_share, seed=settings.seed
    )
    built = build_as_set(
        learned, settings, kinds=kinds, parts=parts_of(settings), title="rows to learn from"
    )
    built_out = build_as_set(measured, settings, kinds=kinds_out, title="rows to measure on")
    if PartialState().is_main_process:
        write_built(settings.out, built, name="train")
        write_built(settings.out, built_out, name="held-out")
    tokenizer = load_tokenizer(folder)
    positions = read_config(folder).get("max_position_embeddings") or settings.max_tokens
    encoder = Encoder(ChatEncoder(tokenizer), max_tokens=min(settings.max_tokens, int(positions)))
    encoded = encode_rows([*learned, *in_twos(built.intra), *in_twos(built.inter)], encoder)
    padding = padding_token(tokenizer, {ids[-1] for ids in encoded.dataset["chosen_ids"]})
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    held_out = HeldOutRows(
        [*measured, *in_twos(built_out.inter), *in_twos(built_out.intra)],
        encoder,
        padding=padding,
        batch_size=2 * settings.batch_size,
    )
    told = {
        "kinds": kinds,
        "held_out_kinds": kinds_out,
        "pairs": {"learned": len(learned), "held_out": len(measured)},
        "rows": encoded.counts,
        "left_out": {**built.left_out, "over max_tokens": encoded.left_out},
        "held_out_left_out": {**built_out.left_out, "over max_tokens": held_out.left_out},
    }
    digest = rows_digest([*built.intra, *built.inter, *built_out.intra, *built_out.inter])
    return _Prepared(folder, tokenizer, padding, encoded, held_out, digest, told)


def _trainer(settings: MaplConfig, prepared: _Prepared, runs: Path) -> MaplRewardTrainer:
    return MaplRewardTrainer(
        model=load_reward_model(prepared.folder, padding=prepared.padding, seed=settings.seed),
        args=trainer_settings(settings, runs, num_rows=len(prepared.encoded.dataset)),
        train_dataset=prepared.encoded.dataset,
        processing_class=prepared.tokenizer,
        peft_config=adapter_of(settings),
        lambda_intra=settings.lambda_intra,
        lambda_inter=settings.lambda_inter,
    )


def _described(settings: MaplConfig, prepared: _Prepared, identity: str) -> dict[str, Any]:
    return {
        "method": "mapl",
        "name": settings.name,
        "objectives": list(COLUMNS),
        "identity": identity,
        "settings": settings.model_dump(mode="json"),
        **prepared.told,
    }


def _identity(settings: MaplConfig, folder: Path) -> str:
    """Return what a checkpoint must be of, for training to go on from it."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=_FREE_TO_CHANGE).encode())
    for one in (weight_version(folder), *map(file_digest, settings.pairs)):
        digest.update(one.encode())
    return digest.hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    if not (out / SETTINGS_FILE).is_file():
        return False
    known = (read_settings(out).model_extra or {}).get("identity")
    if known != identity:
        raise CheckpointRefused(
            f"{out} holds a run of other settings, pairs or start; choose another --out"
        )
    return (out / MODEL_FOLDER).is_dir()
