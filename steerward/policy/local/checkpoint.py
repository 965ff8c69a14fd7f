"""Load a policy from a folder or hub id: weights, tokenizer, template, rule, defaults."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from steerward.models.chat import ChatEncoder
from steerward.models.checkpoint import resolve_device, resolve_dtype
from steerward.models.pretrained import load_pretrained, load_tokenizer, move, read_config
from steerward.models.source import checkpoint_name, resolve_source, weight_version
from steerward.policy.local.model import Weights
from steerward.policy.local.self_check import check_steps
from steerward.protocol.conditioning import DPA_V1, RULES, ConditioningRule
from steerward.protocol.errors import CheckpointRefused

logger = logging.getLogger(__name__)

RULE_FILE = "conditioning.json"

# Settings of transformers' generation that OpenAI's requests do not know.
_NOT_APPLIED = ("top_k", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size")

# Rules of published policies, whose folders hold none.
_PUBLISHED = {"DPA-v1-Mistral-7B": DPA_V1}

# Of Zephyr's SFT model, which DPA-v1 began from; its tokenizer may come without.
_ZEPHYR_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """How completions are drawn where a request does not say."""

    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """Everything that a policy in this process needs."""

    folder: Path
    weights: Weights
    tokenizer: PreTrainedTokenizerBase
    chat: ChatEncoder | None
    """None if there is no chat template: then text is completed, and messages are refused."""
    rule: ConditioningRule | None
    defaults: Defaults
    end_tokens: frozenset[int]
    max_positions: int
    """Longest prompt plus completion."""


def load_policy(
    source: str, *, device: str = "auto", dtype: str = "auto", conditioning: str | None = None
) -> LocalCheckpoint:
    """Load a policy, or refuse.

    Args:
        source: ``pocket-policy``, a folder, or a hub id (``owner/name[@revision]``).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        dtype: ``auto`` (float32 on CPU), ``float32``, ``bfloat16`` or ``float16``.
        conditioning: Name of a rule, or a file of one; None takes the checkpoint's own.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If loading it would need a guess.
    """
    folder = resolve_source(source)
    where = resolve_device(device)
    rule = read_rule(conditioning) if conditioning else _own_rule(source, folder)
    weights = load_weights(folder, device=where, dtype=dtype)
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, weights)
    generation = weights.model.generation_config
    assert generation is not None
    return LocalCheckpoint(
        folder=folder,
        weights=weights,
        tokenizer=tokenizer,
        chat=_chat(tokenizer, rule),
        rule=rule,
        defaults=_defaults(generation),
        end_tokens=_end_tokens(generation, tokenizer),
        max_positions=weights.max_positions,
    )


def load_weights(folder: Path, *, device: torch.device, dtype: str) -> Weights:
    """Load the model of a folder and check that it can be decoded in steps.

    Raises:
        CheckpointRefused: If it cannot, the files do not belong together, or the device is full.
    """
    kind = resolve_dtype(dtype, device, read_config(folder))
    if kind is torch.int8:
        raise CheckpointRefused("a policy computes in float32, bfloat16 or float16, not in int8")
    try:
        model = load_pretrained(AutoModelForCausalLM, folder, what="policy", dtype=kind)
        move(model.eval(), device)
        max_positions = check_steps(model)
    except RuntimeError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointRefused(
            f"{folder} cannot be loaded on {device}: {reason}; if its memory is full, serve fewer "
            "models there"
        ) from error
    count = sum(parameter.numel() for parameter in model.parameters())
    return Weights(model, weight_version(folder), max_positions, count)


def read_rule(name: str) -> ConditioningRule:
    """Return a rule by its name or from a JSON file.

    Raises:
        CheckpointRefused: If there is none, or the file breaks the schema.
    """
    if name in RULES:
        return RULES[name]
    path = Path(name)
    try:
        return ConditioningRule.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointRefused(
            f"there is no conditioning rule {name!r}: give one of {', '.join(RULES)}, or a JSON "
            f"file ({error.strerror})"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointRefused(f"{path}: {place or 'rule'}: {first['msg']}") from error


def _own_rule(source: str, folder: Path) -> ConditioningRule | None:
    path = folder / RULE_FILE
    return read_rule(str(path)) if path.is_file() else _PUBLISHED.get(checkpoint_name(source))


def _chat(tokenizer: PreTrainedTokenizerBase, rule: ConditioningRule | None) -> ChatEncoder | None:
    if tokenizer.chat_template:
        return ChatEncoder(tokenizer)
    return ChatEncoder(tokenizer, template=_ZEPHYR_TEMPLATE) if rule == DPA_V1 else None


def _defaults(generation: GenerationConfig) -> Defaults:
    """Return what the checkpoint says; where it says nothing, OpenAI's defaults."""
    for name in _NOT_APPLIED:
        if (value := getattr(generation, name, None)) not in (None, 0, 1.0):
            logger.warning(
                "generation_config.json sets %s to %s, which is not applied", name, value
            )
    found = Defaults()
    if generation.do_sample is False:
        found = replace(found, temperature=0.0)
    elif generation.temperature is not None:
        found = replace(found, temperature=float(generation.temperature))
    if generation.top_p is not None:
        found = replace(found, top_p=float(generation.top_p))
    return found


def _end_tokens(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    named = generation.eos_token_id
    ids = named if isinstance(named, list) else [named]
    found = {token for token in [*ids, tokenizer.eos_token_id] if isinstance(token, int)}
    if not found:
        raise CheckpointRefused(
            "neither generation_config.json nor the tokenizer names an end token, so no "
            "completion would ever end; set eos_token_id"
        )
    return frozenset(found)


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, weights: Weights) -> None:
    embedding = weights.model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    highest = max(tokenizer.get_vocab().values())
    if highest >= embedding.num_embeddings:
        raise CheckpointRefused(
            f"the tokenizer gives ids up to {highest}, the policy embeds only "
            f"{embedding.num_embeddings}; these files do not belong together"
        )
