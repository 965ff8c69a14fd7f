"""The policy that is aligned: loaded in the numbers it is trained in, saved as it is served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from steerward.models.pretrained import load_pretrained, load_tokenizer
from steerward.protocol.alignment import PolicyTraining
from steerward.protocol.errors import CheckpointRefused
from steerward.training.sft_folder import whole_folder
from steerward.training.sft_policy import (
    lora_config,
    save_adapter,
    save_policy,
    stored_dtype,
    uses_bfloat16,
)

_LORA_LEARNING_RATE = 1e-5
# For all weights, at a size; smaller models stand and need larger steps.
_LEARNING_RATE, _AT_PARAMETERS, _POWER = 1e-6, 8e9, 0.7
_HIGHEST_LEARNING_RATE = 5e-4


def load_policy(base: Path, settings: PolicyTraining, device: torch.device) -> PreTrainedModel:
    """Return the model that learns, on the CPU: in float32 where all weights do.

    Raises:
        CheckpointRefused: If it does not load.
    """
    keeps_dtype = settings.method == "lora" and uses_bfloat16(device)
    dtype = stored_dtype(base) if keeps_dtype else torch.float32
    model = load_pretrained(AutoModelForCausalLM, base, what="policy", dtype=dtype)
    # TRL loads the policy at the start from there once more, for the KL divergence.
    model.config._name_or_path = str(base)
    return model


def load_chat_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Return the policy's tokenizer, which pads where completions begin.

    Raises:
        CheckpointRefused: If it has no chat template or no token to pad with.
    """
    tokenizer = load_tokenizer(base)
    if tokenizer.chat_template is None:
        raise CheckpointRefused(
            f"the tokenizer in {base} has no chat template; add the one that the policy was "
            "trained with as chat_template.jinja"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CheckpointRefused(
                f"the tokenizer in {base} has neither a pad token nor an end token; set one"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def learning_rate(settings: PolicyTraining, parameters: int) -> float:
    """Return the peak that is set, or that suits the model.

    Args:
        settings: Of the run.
        parameters: Of the whole model.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    if settings.method == "lora":
        return _LORA_LEARNING_RATE
    return min(_LEARNING_RATE * (_AT_PARAMETERS / parameters) ** _POWER, _HIGHEST_LEARNING_RATE)


def positions_of(model: PreTrainedModel) -> int:
    """Return how many tokens the policy reads at once."""
    text = model.config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or 2**31


def adapter_of(settings: PolicyTraining) -> LoraConfig | None:
    """Return the settings of the adapter that is trained; None: all weights are."""
    return lora_config(settings.lora) if settings.method == "lora" else None


def save_aligned(
    model: Any, out: Path, *, base: Path, state: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the folder of a policy or of an adapter: whole, or not at all.

    Args:
        model: As the trainer holds it.
        out: Must not be there.
        base: The policy at the start, whose tokenizer and template go along.
        state: All weights, gathered from all devices; default: the model's own.
    """
    weights = dict(model.state_dict() if state is None else state)
    with whole_folder(out) as building:
        if isinstance(model, PeftModel):
            save_adapter(model, weights, building, base=base)
        else:
            save_policy(model, weights, building, base=base)
