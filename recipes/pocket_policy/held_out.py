"""How well the policy predicts answers of the test split."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from recipes.pocket_policy.conversations import Conversation
from recipes.pocket_policy.directed import encode_example
from recipes.pocket_policy.language import POSITIONS


@torch.inference_mode()
def held_out_perplexity(
    checkpoint: Path,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Conversation],
    *,
    most: int = 1000,
) -> dict[str, Any]:
    """Return perplexity by token of the first answers of conversations, read without a direction.

    Returns:
        ``perplexity``, ``tokens`` and ``answers``.
    """
    model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    total, tokens, answers = 0.0, 0, 0
    # Files come one after the other; a sample must have all sources.
    for conversation in random.Random(0).sample(conversations, min(most, len(conversations))):
        question, answer = conversation.messages[:2]
        ids, prompt_length = encode_example(tokenizer, [question], answer["content"])
        if len(ids) > POSITIONS:
            continue
        logits_TV = model(torch.tensor([ids])).logits[0, prompt_length - 1 : -1]
        total += float(cross_entropy(logits_TV, torch.tensor(ids[prompt_length:]), reduction="sum"))
        tokens += len(ids) - prompt_length
        answers += 1
    return {"perplexity": math.exp(total / tokens), "tokens": tokens, "answers": answers}
