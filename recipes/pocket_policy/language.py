"""First step: a small decoder learns to predict every token of the conversations.

Axis legend: T tokens, B blocks.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from recipes.pocket_policy.conversations import Conversation

# The longest conversation that training shows, and what the policy then accepts.
POSITIONS = 512
BLOCK_TOKENS = 256
BLOCKS_PER_STEP = 16
LEARNING_RATE = 2e-3


def policy_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the architecture: 5.7 million parameters, embeddings tied."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def learn_language(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    *,
    work: Path,
    steps: int,
    seed: int,
) -> Path:
    """Train from random weights; a run that was stopped goes on from its last checkpoint.

    The learning rate rises and stays: the second step lets it fall.

    Returns:
        The folder of the weights.
    """
    out = work / "language"
    if out.exists():
        return out
    set_seed(seed)
    model = LlamaForCausalLM(policy_config(tokenizer))
    blocks_BT = _blocks(conversations, tokenizer, count=steps * BLOCKS_PER_STEP, seed=seed)
    runs = work / "language-runs"
    trainer = Trainer(
        model=model,
        args=training_arguments(
            runs,
            steps=steps,
            batch_size=BLOCKS_PER_STEP,
            learning_rate=LEARNING_RATE,
            schedule="constant_with_warmup",
            seed=seed,
        ),
        train_dataset=_Blocks(blocks_BT),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    save_whole(model, out)
    return out


def training_arguments(
    runs: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    schedule: str,
    seed: int,
    sampling: str = "random",
) -> TrainingArguments:
    """Return what both steps of the recipe share."""
    return TrainingArguments(
        output_dir=str(runs),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type=schedule,
        train_sampling_strategy=sampling,
        warmup_steps=min(100, steps // 10),
        weight_decay=0.1,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=50,
        save_steps=200,
        save_total_limit=2,
        report_to=[],
        seed=seed,
    )


def save_whole(model: LlamaForCausalLM, out: Path) -> None:
    """Save weights so that the folder is there whole or not at all."""
    building = out.with_name(f"{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    model.save_pretrained(building)
    building.rename(out)


def last_checkpoint(runs: Path) -> str | None:
    """Return the folder of the last checkpoint of a run that was stopped."""
    found = sorted(runs.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return str(found[-1]) if found else None


class _Blocks(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, blocks_BT: Tensor) -> None:
        self._blocks_BT = blocks_BT

    def __len__(self) -> int:
        return len(self._blocks_BT)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids_T = self._blocks_BT[index].long()
        return {"input_ids": ids_T, "labels": ids_T}


def _blocks(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    *,
    count: int,
    seed: int,
) -> Tensor:
    """Return blocks of equal length from conversations laid end to end, in a new order each time.

    Every second time the roles are swapped where both sides were written by one person: each
    turn is then an answer once.
    """
    order = random.Random(seed)
    ids: list[int] = []
    epoch = 0
    while len(ids) < count * BLOCK_TOKENS:
        texts: list[str] = []
        for conversation in order.sample(conversations, len(conversations)):
            messages: list[dict[str, str]] = list(conversation.messages)
            if epoch % 2 and conversation.source == "self_dialogue" and len(messages) > 2:
                messages = [_swapped(message) for message in messages[1:]]
            texts.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
        encoded: Any = tokenizer(texts, add_special_tokens=False)["input_ids"]
        for found in encoded:
            ids.extend(found)
        epoch += 1
    blocks = torch.tensor(ids[: count * BLOCK_TOKENS], dtype=torch.int16)
    return blocks.view(count, BLOCK_TOKENS)


def _swapped(message: dict[str, str]) -> dict[str, str]:
    role = "user" if message["role"] == "assistant" else "assistant"
    return {"role": role, "content": message["content"]}
