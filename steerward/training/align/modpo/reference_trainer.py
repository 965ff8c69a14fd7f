"""Log-probabilities of the reference, computed once for all trainings that begin with it.

Computed by TRL's DPO trainer, so that they are the numbers that it would compute as it trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from steerward.models.pretrained import load_pretrained, load_tokenizer
from steerward.models.source import weight_version
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.modpo.implicit_rewards import tokens_of
from steerward.training.align.modpo.trainer import REFERENCE_COLUMNS, modpo_config

logger = logging.getLogger(__name__)

# What of the settings changes the numbers.
_READ = ("max_length", "truncation_mode", "ld_alpha", "pad_token", "bf16", "fp16")


def with_reference(
    pairs: Dataset, *, policy: Path, training: Mapping[str, Any], cache: Path | None = None
) -> Dataset:
    """Return pairs with the columns of `REFERENCE_COLUMNS`; without those that are cut to nothing.

    Args:
        pairs: With `prompt`, `chosen` and `rejected`.
        policy: The reference.
        training: Fields of TRL's `DPOConfig`, as the trainings will have them.
        cache: safetensors file that keeps the numbers; written over if it is of something else.

    Raises:
        DatasetRefused: If no pair is left.
        InvalidRequest: If TRL refuses the settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = modpo_config(Path(folder), {**training, "report_to": "none"})
        identity = _identity(pairs, policy, settings)
        tensors = _read(cache, identity)
        if tensors is None:
            _check_length(pairs, policy, settings)
            tensors = _compute(pairs, policy, settings, identity=identity)
            if cache is not None and PartialState().is_main_process:
                _write(cache, tensors, identity)
    rows = tensors["rows"].tolist()
    if len(rows) < len(pairs):
        logger.warning(
            "%d of %d pairs are left out: their prompts fill max_length",
            len(pairs) - len(rows),
            len(pairs),
        )
    kept = pairs.select(rows)
    for column in REFERENCE_COLUMNS:
        kept = kept.add_column(column, tensors[column].tolist())  # pyright: ignore
    return kept


def _compute(
    pairs: Dataset, policy: Path, settings: DPOConfig, *, identity: str
) -> dict[str, torch.Tensor]:
    # TRL keeps what it computes under a digest of the data that knows nothing of the settings: a
    # column that is named for all of it keeps it from taking other numbers for these.
    row = f"row_{identity}"
    texts = pairs.select_columns(_columns(pairs))
    numbered = texts.add_column(row, list(range(len(pairs))))  # pyright: ignore
    trainer = DPOTrainer(
        model=load_pretrained(AutoModelForCausalLM, policy, what="policy", dtype=torch.float32),
        args=settings,
        train_dataset=numbered,
        processing_class=padded_tokenizer(policy),
    )
    found: Any = trainer.train_dataset
    columns = {column: torch.tensor(found[column][:]) for column in REFERENCE_COLUMNS}
    return {"rows": torch.tensor(found[row][:], dtype=torch.int64), **columns}


def _check_length(pairs: Dataset, policy: Path, settings: DPOConfig) -> None:
    limit, tokenizer = settings.max_length, load_tokenizer(policy)
    rows: Any = pairs
    if not any(
        limit is None or tokens_of(tokenizer, row["prompt"], row["chosen"])[1] < limit
        for row in rows
    ):
        raise DatasetRefused(
            f"there are no pairs, or the prompt of each fills max_length {limit}; raise it"
        )


def padded_tokenizer(policy: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a policy; padding is never read, so any token will do."""
    tokenizer = load_tokenizer(policy)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _columns(pairs: Dataset) -> list[str]:
    read = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs")
    return [name for name in read if name in pairs.column_names]


def _identity(pairs: Dataset, policy: Path, settings: DPOConfig) -> str:
    read = {name: getattr(settings, name) for name in _READ}
    digest = hashlib.sha256(json.dumps([weight_version(policy), read], default=repr).encode())
    for row in pairs.select_columns(_columns(pairs)):
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def _read(cache: Path | None, identity: str) -> dict[str, torch.Tensor] | None:
    if cache is None or not cache.is_file():
        return None
    with safe_open(cache, framework="pt") as file:
        if (file.metadata() or {}).get("identity") != identity:
            return None
        return {name: file.get_tensor(name) for name in ("rows", *REFERENCE_COLUMNS)}


def _write(cache: Path, tensors: Mapping[str, torch.Tensor], identity: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(cache.name + ".tmp")
    save_file(dict(tensors), temporary, metadata={"identity": identity})
    os.replace(temporary, cache)
