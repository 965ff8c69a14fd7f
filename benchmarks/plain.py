"""The baseline: what a user writes with transformers alone, padded batches or one by one.

Axis legend: B sequences of a batch, L their padded length, K objectives, H hidden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.workload import Item
from steerward.models.layout import read_heads
from steerward.models.tensors import TensorFiles


def rendered(tokenizer: PreTrainedTokenizerBase, item: Item) -> list[str]:
    """Return each candidate of an item with its prompt, in the tokenizer's chat template."""
    texts: list[str] = []
    for candidate in item.candidates:
        messages = [
            {"role": "user", "content": item.prompt},
            {"role": "assistant", "content": candidate},
        ]
        texts.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
    return texts


class PlainTransformers:
    """The same weights under transformers' own padded forward pass.

    Args:
        folder: Checkpoint of `workload.write_checkpoint`.
        padding_side: Where short sequences of a batch are filled up.
    """

    def __init__(self, folder: Path, *, padding_side: Literal["left", "right"] = "right") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
        # Left to itself, transformers computes in the type that a checkpoint is stored in.
        self.backbone = AutoModel.from_pretrained(
            folder, attn_implementation="sdpa", dtype=torch.float32
        ).eval()
        # Heads, gate and transform are small and the same; only the way to run differs.
        config = json.loads((folder / "config.json").read_text())
        self.parts = read_heads(config, TensorFiles(folder))
        self._assistant = self.tokenizer.convert_tokens_to_ids("[ASSISTANT]")
        self.computed_tokens = 0
        """Tokens that forward passes computed so far, padding included."""

    def score(self, texts: Sequence[str], *, batch_size: int) -> list[float]:
        """Return the score of every rendered text, in batches in order of arrival."""
        scores: list[float] = []
        for i in range(0, len(texts), batch_size):
            scores.extend(self.score_batch(texts[i : i + batch_size]).tolist())
        return scores

    @torch.inference_mode()
    def score_batch(self, texts: Sequence[str]) -> Tensor:
        """Return the score of every rendered text, from one forward pass."""
        batch = self.tokenizer(
            list(texts), add_special_tokens=False, padding=True, return_tensors="pt"
        )
        ids_BL, mask_BL = batch["input_ids"], batch["attention_mask"]
        self.computed_tokens += ids_BL.numel()
        hidden_BLH = self.hidden(ids_BL, mask_BL)
        rewards_BK = self.rewards(hidden_BLH, mask_BL)
        # The token that closes the user's turn: the one before the last role marker.
        header_B = (ids_BL == self._assistant).int().argmax(dim=-1)
        assert self.parts.gate is not None
        gates_BK = self.parts.gate(hidden_BLH[torch.arange(len(texts)), header_B - 1])
        return ((rewards_BK @ self.parts.transform_KK) * gates_BK).sum(dim=-1)

    def hidden(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the final hidden states of a batch."""
        mask = mask_BL if len(ids_BL) > 1 else None
        return self.backbone(ids_BL, attention_mask=mask, use_cache=False).last_hidden_state

    def rewards(self, hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the rewards of each sequence, (B, K), read at its last token."""
        last_B = mask_BL.sum(dim=-1) - 1
        return self.parts.heads(hidden_BLH[torch.arange(len(last_B)), last_B])
