"""Last step: one folder with everything that a policy needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recipes.pocket_policy.rule import RULE
from steerward.policy.local.checkpoint import RULE_FILE

TEMPERATURE, TOP_P = 0.7, 0.95


def package(weights: Path, tokenizer: PreTrainedTokenizerFast, *, out: Path) -> Path:
    """Write the checkpoint, in bfloat16, with tokenizer, template, rule and defaults."""
    shutil.rmtree(out, ignore_errors=True)
    model = LlamaForCausalLM.from_pretrained(weights, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / RULE_FILE).write_text(RULE.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return out
