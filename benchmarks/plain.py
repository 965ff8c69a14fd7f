"""The baseline: what a user writes with transformers alone, padded batches or one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from benchmarks.workload import Item
from steerward.models.layout import read_heads
from steerward.models.tensors import TensorFiles


class PlainTransformers:
    """The same weights under transformers' own padded forward pass.

    Args:
        folder: Checkpoint of `workload.write_checkpoint`.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
        self._backbone = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
        # Heads, gate and transform are small and the same; only the way to run differs.
        config = json.loads((folder / "config.json").read_text())
        self._parts = read_heads(config, TensorFiles(folder))

    @torch.inference_mode()
    def score(self, items: Sequence[Item], *, batch_size: int) -> Tensor:
        """Return the score of every candidate, in batches in order of arrival."""
        texts: list[str] = []
        for item in items:
            for candidate in item.candidates:
                messages = [
                    {"role": "user", "content": item.prompt},
                    {"role": "assistant", "content": candidate},
                ]
                texts.append(self._tokenizer.apply_chat_template(messages, tokenize=False))
        scores = [
            self._score_batch(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)
        ]
        return torch.cat(scores)

    def _score_batch(self, texts: Sequence[str]) -> Tensor:
        batch = self._tokenizer(
            list(texts), add_special_tokens=False, padding=True, return_tensors="pt"
        )
        hidden = self._backbone(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"] if len(texts) > 1 else None,
            use_cache=False,
        ).last_hidden_state
        rows = torch.arange(len(texts))
        last = batch["attention_mask"].sum(dim=-1) - 1
        # The token that closes the user's turn: the one before the last role marker.
        assistant = self._tokenizer.convert_tokens_to_ids("[ASSISTANT]")
        header = (batch["input_ids"] == assistant).int().argmax(dim=-1)
        rewards_NK = self._parts.heads(hidden[rows, last])
        assert self._parts.gate is not None
        gates_NK = self._parts.gate(hidden[rows, header - 1])
        return ((rewards_NK @ self._parts.transform_KK) * gates_NK).sum(dim=-1)
