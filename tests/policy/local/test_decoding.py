"""What is drawn in continuous batches is what transformers' own `generate` gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from steerward.policy.local.cache import BLOCK_TOKENS, CacheShape
from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy
from steerward.policy.local.self_check import check_steps
from steerward.protocol.errors import CheckpointRefused
from tests.policies import save_policy
from tests.policy.conftest import ask, ask_all, make_policy, started, texts

PROMPTS = [
    "Hello",
    "Tell me about rainbows.",
    "The quick brown fox jumps over the lazy dog, again and again, and again.",
    "0 1 2 3 4 5 6 7 8 9",
    "Light splits in drops of water. " * 3,
]


def generate(folder: Path, checkpoint: LocalCheckpoint, text: str, count: int) -> str:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert checkpoint.chat is not None
    ids = torch.tensor([checkpoint.chat.encode_prompt([{"role": "user", "content": text}])])
    output = model.generate(ids, max_new_tokens=count, do_sample=False, use_cache=True)
    drawn: Any = output[0, ids.shape[1] :]
    return str(checkpoint.tokenizer.decode(drawn, skip_special_tokens=True))


@pytest.mark.parametrize("memory", ["ample", "scarce"])
def test_greedy_completions_are_those_of_generate(
    policy_folder: Path, checkpoint: LocalCheckpoint, memory: str
) -> None:
    """With scarce memory completions make room for each other and are computed again."""
    model = checkpoint.weights.model
    block = CacheShape.of(model.config, model.dtype).bytes_per_token * BLOCK_TOKENS
    blocks = 256 // BLOCK_TOKENS + (1 if memory == "scarce" else 200)
    expected = [generate(policy_folder, checkpoint, text, 40) for text in PROMPTS]

    async def run() -> list[str]:
        policy = await started(make_policy(checkpoint, cache_bytes=blocks * block))
        try:
            return await texts(policy, ask_all(PROMPTS, temperature=0.0, max_tokens=40))
        finally:
            policy.close()

    assert asyncio.run(run()) == expected


def test_samples_of_one_prompt_do_not_disturb_each_other(checkpoint: LocalCheckpoint) -> None:
    async def run() -> tuple[list[str], list[str]]:
        policy = await started(make_policy(checkpoint))
        try:
            request = ask_all([PROMPTS[1]] * 5, seed=11, max_tokens=30, temperature=1.0)
            together = await texts(policy, request)
            first_only = await texts(
                policy, ask(PROMPTS[1], seed=11, max_tokens=30, temperature=1.0)
            )
            return together, first_only
        finally:
            policy.close()

    together, first_only = asyncio.run(run())
    assert len(set(together)) == 5
    assert together[0] == first_only[0]


_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**_SIZES),
        MistralConfig(**_SIZES, sliding_window=7),
        Qwen2Config(**{k: v for k, v in _SIZES.items() if k != "head_dim"}),
        Qwen3Config(**_SIZES),
    ],
    ids=["llama", "mistral-window", "qwen2", "qwen3"],
)
def test_families_give_what_they_give_alone(config: Any) -> None:
    torch.manual_seed(0)
    check_steps(AutoModelForCausalLM.from_config(config).eval())


def test_a_family_that_would_be_wrong_is_refused() -> None:
    """Gemma 2 caps its scores before the softmax, which no fused attention does."""
    model = AutoModelForCausalLM.from_config(Gemma2Config(**_SIZES)).eval()
    with pytest.raises(CheckpointRefused, match="gemma2 policy cannot be decoded"):
        check_steps(model)


def test_the_self_check_sees_a_wrong_position(policy_folder: Path) -> None:
    config = AutoConfig.from_pretrained(policy_folder)
    model = AutoModelForCausalLM.from_config(config).eval()
    rotary: Any = model.model.rotary_emb
    original = rotary.forward
    # As if positions had not travelled with the step.
    rotary.forward = lambda x, position_ids: original(x, position_ids * 0 + position_ids.min())
    with pytest.raises(CheckpointRefused, match="differ by"):
        check_steps(model)


def test_a_folder_without_an_end_token_is_refused(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "endless")
    for name in ("generation_config.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace("eos_token", "no_eos_token"))
    with pytest.raises(CheckpointRefused, match="end token"):
        load_policy(str(folder))
