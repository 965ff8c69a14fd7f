"""Responses of a policy outside of TRL's trainers, drawn as these draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

_AT_ONCE = 32


@torch.no_grad()
def draw_responses(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Mapping[str, str]]],
    *,
    max_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    seed: int,
    batch_size: int = _AT_ONCE,
) -> list[str]:
    """Return a response to each prompt, the same for the same seed; other random numbers stay.

    What the policy's generation_config.json says of sampling does not count, as it does not while
    TRL trains: temperature and top_p alone do.

    Args:
        model: Policy.
        tokenizer: With a chat template, if prompts are turns, and a token to pad with.
        prompts: Texts, or lists of turns.
        max_tokens: Longest response.
        temperature: Of the sampling.
        top_p: Of the sampling.
        seed: Of the sampling.
        batch_size: Prompts at once.
    """
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=True,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    was_training, side = model.training, tokenizer.padding_side
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    tokenizer.padding_side = "left"
    found: list[str] = []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for begin in range(0, len(prompts), batch_size):
                texts = [_text(tokenizer, one) for one in prompts[begin : begin + batch_size]]
                found += _drawn(model, tokenizer, texts, config)
    finally:
        model.train(was_training)
        tokenizer.padding_side = side
    return found


def _text(tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[Mapping[str, str]]) -> str:
    if isinstance(prompt, str):
        return prompt
    turns = [dict(turn) for turn in prompt]
    written: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return written


def _drawn(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: list[str], config: GenerationConfig
) -> list[str]:
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    ids = model.generate(**inputs.to(model.device), generation_config=config)
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
