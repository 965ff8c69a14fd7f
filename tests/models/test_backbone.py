"""Backbones of many families give packed what they give alone, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PhimoeConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import Group, group_conversations
from steerward.protocol.errors import CheckpointRefused, InputTooLong
from tests.checkpoints import edit_tensors, save_sequence_classifier

SIZES = {
    # Qwen2's tokenizer class adds a token of its own to the golden 1,024.
    "vocab_size": 1032,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 1023,
    "num_labels": 2,
}
BERT_SIZES = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}

FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama-rope-scaled": LlamaConfig(
        **SIZES,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral-sliding-window": MistralConfig(**SIZES, sliding_window=12),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    # Soft-capped scores and every second layer with a sliding window.
    "gemma2": Gemma2Config(**SIZES, head_dim=16, sliding_window=12, attn_logit_softcapping=2.0),
}

QUESTION = {"role": "user", "content": "What is the capital of France, and why is it called so?"}
ANSWERS = ["Paris, after the Parisii, a people of the Iron Age.", "Paris.", "I do not know " * 9]


@pytest.mark.parametrize("family", FAMILIES)
def test_family_scores_as_transformers_does(tmp_path: Path, family: str) -> None:
    reference = save_sequence_classifier(tmp_path, FAMILIES[family])
    # Fused operators drop Gemma 2's soft cap; the eager form is the definition.
    reference.set_attn_implementation("eager")
    model = load_reward_model(tmp_path, device="cpu")
    conversations = model.encode([QUESTION], ANSWERS)
    packed = model.score(group_conversations(conversations)).rewards_NK
    with torch.inference_mode():
        alone = torch.cat([reference(torch.tensor([c.ids])).logits for c in conversations])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    assert max(len(c.ids) for c in conversations) > 4 * 12  # well beyond the window


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": 96,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("config", "reach"),
    [
        (Phi3Config(**SIZES, rope_parameters=LONG_ROPE, original_max_position_embeddings=96), 96),
        (LlamaConfig(**SIZES, rope_parameters=DYNAMIC_ROPE), 512),
    ],
    ids=["longrope", "dynamic"],
)
def test_rope_that_follows_the_longest_sequence_reaches_as_far_as_it_stays_put(
    tmp_path: Path, config: PretrainedConfig, reach: int
) -> None:
    reference = save_sequence_classifier(tmp_path, config)
    model = load_reward_model(tmp_path, device="cpu")
    assert model.max_input_tokens == reach
    ids = [(5 * i) % 1000 for i in range(40)]
    longest = Group((1,) * 8, [(2,) * (reach - 8)], gating_position=0)
    beside = model.score([Group(tuple(ids[:20]), [tuple(ids[20:])], 0), longest]).rewards_NK[:1]
    with torch.inference_mode():
        alone = reference(torch.tensor([ids])).logits
    torch.testing.assert_close(beside, alone, atol=1e-5, rtol=1e-5)


def test_window_of_the_mask_alone_limits_what_is_scored(tmp_path: Path) -> None:
    config = PhimoeConfig(**SIZES, sliding_window=24, num_local_experts=2)
    reference = save_sequence_classifier(tmp_path, config)
    model = load_reward_model(tmp_path, device="cpu")
    assert model.max_input_tokens == 24
    ids = [(5 * i) % 1000 for i in range(24)]
    packed = model.score([Group(tuple(ids[:12]), [tuple(ids[12:])], 0)]).rewards_NK
    with torch.inference_mode():
        alone = reference(torch.tensor([ids])).logits
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputTooLong, match="limit 24"):
        model.encode([QUESTION], ANSWERS)


@pytest.mark.parametrize("family", ["mistral-sliding-window", "gemma2"])
def test_window_of_the_layers_limits_nothing(tmp_path: Path, family: str) -> None:
    save_sequence_classifier(tmp_path, FAMILIES[family])
    assert load_reward_model(tmp_path, device="cpu").max_input_tokens == 512


def test_bert_as_a_decoder_is_a_causal_backbone(tmp_path: Path) -> None:
    save_sequence_classifier(tmp_path, LlamaConfig(**SIZES))
    from transformers import AutoModel

    torch.manual_seed(0)
    bert = AutoModel.from_config(BertConfig(**BERT_SIZES, is_decoder=True), add_pooling_layer=False)
    bert.save_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda t: t.update({"score.weight": torch.randn(2, 32)}))
    model = load_reward_model(tmp_path, device="cpu")
    conversations = model.encode([QUESTION], ANSWERS)
    packed = model.score(group_conversations(conversations)).rewards_NK
    bert.eval()
    with torch.inference_mode():
        states = [bert(torch.tensor([c.ids])).last_hidden_state[0, -1] for c in conversations]
    torch.testing.assert_close(packed, model.heads(torch.stack(states)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BertConfig(**BERT_SIZES), "both directions"),
        (MambaConfig(vocab_size=1024, hidden_size=32, num_hidden_layers=2), "carry one candidate"),
    ],
    ids=["bidirectional", "recurrent"],
)
def test_backbone_that_does_not_keep_segments_apart_is_refused(
    tmp_path: Path, config: PretrainedConfig, reason: str
) -> None:
    from transformers import AutoModel

    save_sequence_classifier(tmp_path, LlamaConfig(**SIZES))
    AutoModel.from_config(config).save_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda t: t.update({"score.weight": torch.randn(1, 32)}))
    with pytest.raises(CheckpointRefused, match=reason):
        load_reward_model(tmp_path, device="cpu")


def test_learned_positions_of_gpt2_work_too(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=1024, n_embd=32, n_layer=2, n_head=4, n_positions=512, num_labels=1
    )
    config.pad_token_id = 1023
    reference = save_sequence_classifier(tmp_path, config)
    model = load_reward_model(tmp_path, device="cpu")
    (conversation,) = model.encode([QUESTION], ANSWERS[:1])
    with torch.inference_mode():
        expected = reference(torch.tensor([conversation.ids])).logits
    packed = model.score(group_conversations([conversation])).rewards_NK
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=1e-5)
