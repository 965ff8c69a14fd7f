"""A tiny policy with random weights, written as users' checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from recipes.pocket_policy.vocabulary import train_tokenizer

# Enough to learn some words; every other text is spelled in bytes.
_TEXTS = [
    "Hello, how are you? I am fine, and what about you?",
    "Tell me about rainbows. Light splits in drops of water.",
    "Maximize helpfulness*100 + verbosity*-26",
    "The quick brown fox jumps over the lazy dog 0 1 2 3 4 5 6 7 8 9.",
]
_VOCABULARY = 320

RULE = {
    "name": "tiny",
    "objectives": ["helpfulness", "verbosity"],
    "template": "Maximize helpfulness*{helpfulness} + verbosity*{verbosity}",
    "cone_deg": 45.0,
}
"""Contents of its conditioning.json."""
ARMORM_RULE = {
    **RULE,
    "reward_names": {"helpfulness": "objective_0", "verbosity": "objective_1"},
}
"""The same beside the golden ArmoRM, whose objectives have no better names."""


def save_policy(
    folder: Path,
    *,
    seed: int = 0,
    positions: int = 256,
    rule: dict[str, object] | None = RULE,
    has_template: bool = True,
) -> Path:
    """Write a Llama of two layers with everything that a policy needs; return its folder.

    Args:
        folder: To be made.
        seed: Of the weights.
        positions: Longest prompt plus completion, in tokens.
        rule: How it reads a direction; None leaves out conditioning.json.
        has_template: Whether there is a chat template.
    """
    # Its types allow lists of ids, which none of these is.
    tokenizer: Any = train_tokenizer(_TEXTS, size=_VOCABULARY)
    if not has_template:
        tokenizer.chat_template = None
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            # Logits then differ by about 1: no two tokens are so close that rounding decides.
            initializer_range=0.2,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    model.generation_config = GenerationConfig(
        do_sample=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if rule is not None:
        (folder / "conditioning.json").write_text(json.dumps(rule))
    return folder
