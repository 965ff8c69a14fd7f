"""The reward model that MAPL trains: loaded with a new head or the one it has, saved to be served.

Axis legend: N conversations, T tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from steerward.models.pretrained import load_pretrained
from steerward.protocol.errors import CheckpointRefused
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.sft_folder import whole_folder

OUTPUT = "preference"
"""Name of the model's one output."""
_HEAD = "score."


class _WithOneOutput:
    """Makes transformers load a checkpoint as a classifier with one output."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def from_pretrained(self, folder: Path, *, config: Any, **options: Any) -> Any:
        config.id2label = {0: OUTPUT}
        config.label2id = {OUTPUT: 0}
        config.get_text_config().pad_token_id = self._padding
        config.use_cache = False
        return AutoModelForSequenceClassification.from_pretrained(folder, config=config, **options)


def load_reward_model(folder: Path, *, padding: int, seed: int) -> PreTrainedModel:
    """Return a causal checkpoint with a new head, or a reward model with the one it has.

    Args:
        folder: Of the checkpoint.
        padding: Token to pad with.
        seed: Of a new head.

    Raises:
        CheckpointRefused: If it does not load, or has another number of outputs.
    """
    torch.manual_seed(seed)
    return load_pretrained(
        _WithOneOutput(padding),
        folder,
        what="start",
        dtype=torch.float32,
        other_keys={"lm_head.weight"},
        may_miss=(_HEAD,),
    )


def padding_token(tokenizer: PreTrainedTokenizerBase, ends: set[int]) -> int:
    """Return a token to pad with that no conversation ends in.

    Classifiers of transformers read the last token that is not padding. Padded with the token that
    closes a turn, as many checkpoints are, they would read another one than is served.

    Raises:
        CheckpointRefused: If there is none.
    """
    known = [tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    for token in known:
        if isinstance(token, int) and token not in ends:
            return token
    raise CheckpointRefused(
        "conversations end in every special token that this tokenizer has, so none is left to pad "
        "with; add a padding token to it"
    )


def adapter_of(settings: MaplConfig) -> LoraConfig | None:
    """Return the settings of the adapter that is trained; None: all weights are."""
    if settings.method == "full":
        return None
    return LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # pyright: ignore[reportArgumentType] (any number will do)
        target_modules="all-linear",
        modules_to_save=["score"],
    )


def save_reward_model(model: Any, tokenizer: Any, out: Path, *, state: dict[str, Any]) -> None:
    """Write a folder that transformers and the server load: whole, or not at all.

    Args:
        model: As it was trained, perhaps with an adapter, which is merged.
        tokenizer: With its chat template.
        out: Must not be there.
        state: All weights, gathered from all devices.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
        state = model.state_dict()
    with whole_folder(out) as building:
        model.save_pretrained(building, state_dict=state)
        tokenizer.save_pretrained(building)
