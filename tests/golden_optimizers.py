"""The golden numbers of optimisers as tensors, and the policies that their losses are of."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from tests.golden_cases import GOLDEN

EXACT = 1e-10
"""Between two computations in float64."""
SINGLE = 1e-6
"""Where a number on the way is in float32, as the log-probabilities of TRL's heads are."""


@cache
def optimizer_cases(name: str) -> list[dict[str, Any]]:
    """Return the ten cases of a family."""
    path = GOLDEN / "optimizers" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"]


def tensor_of(values: Any) -> Tensor:
    """Return nested lists in float64, with NaN where the file has null."""
    return torch.tensor(_filled(values), dtype=torch.float64)


def _filled(values: Any) -> Any:
    if isinstance(values, list):
        return [_filled(one) for one in values]
    return float("nan") if values is None else values


def assert_close(found: Any, expected: Any, *, tolerance: float = EXACT) -> None:
    """Compare with golden numbers, absolutely and in proportion."""
    found = torch.as_tensor(found, dtype=torch.float64).detach()
    torch.testing.assert_close(
        found, tensor_of(expected), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def bigram_policy(table: list[list[float]]) -> Any:
    """Return a Llama in float64 whose logits are a table's row of the last token, exactly.

    It has no layers: one-hot embeddings, scaled by the root of their size in the norm and back by
    its weight, meet a head that is the table. A power of 4 for the vocabulary loses no bit.
    """
    table_VV = tensor_of(table)
    size = len(table_VV)
    sizes: dict[str, Any] = {"vocab_size": size, "hidden_size": size, "intermediate_size": size}
    model = LlamaForCausalLM(
        LlamaConfig(
            **sizes,
            num_hidden_layers=0,
            num_attention_heads=2,
            num_key_value_heads=2,
            rms_norm_eps=0.0,
            tie_word_embeddings=False,
        )
    ).double()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.norm.weight.fill_(size**-0.5)
        model.lm_head.weight.copy_(table_VV.T)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    return model.eval()
