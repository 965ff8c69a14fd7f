"""Sampling and scoring as public scripts do: ``python -m benchmarks.peers.plain_rsf ...``.

The method of RAFT (arXiv:2304.06767) and of scripts after it, in our own words: prompts in static
batches, padded on the left, n completions each by `generate`; then the reward model on the same
texts, padded on the right; then the next batch. The work is a JSON file, the result another:

    python -m benchmarks.peers.plain_rsf POLICY REWARD_MODEL WORK.json RESULT.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from benchmarks.plain import PlainTransformers, rendered
from benchmarks.workload import Item

Turns = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done."""

    requests: list[Turns] = field(default_factory=list[Turns])
    """Conversations to draw completions for; the last turn is the user's."""
    pairs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Prompts and completions to score alone, untimed."""
    candidates: int = 8
    """Completions of a request."""
    batch: int = 1
    """Requests of a batch."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 96
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    sampling_s: float
    scoring_s: float
    tokens: int
    """Drawn, the closing ones among them, without padding."""
    samples: list[str]
    rewards: list[list[float]]
    """Of the samples, or of the pairs: the heads, in their order."""
    scores: list[float]


class RewardsToo(PlainTransformers):
    """The plain model, of which the rewards are kept beside the scores."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.last_rewards_BK = torch.empty(0)

    def rewards(self, hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the rewards of each sequence, and keep them."""
        self.last_rewards_BK = super().rewards(hidden_BLH, mask_BL)
        return self.last_rewards_BK


class PlainScript:
    """A policy and a reward model in one process.

    Args:
        policy: Checkpoint.
        reward_model: Checkpoint.
    """

    def __init__(self, policy: Path, reward_model: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(policy, padding_side="left")
        self._policy: Any = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
        self._reward_model = RewardsToo(reward_model)

    def run(self, work: Work) -> Result:
        """Return what work comes to, batch after batch."""
        torch.manual_seed(work.seed)
        sampling_s = scoring_s = 0.0
        tokens = 0
        samples: list[str] = []
        rewards: list[list[float]] = []
        scores: list[float] = []
        for first in range(0, len(work.requests), work.batch):
            requests = work.requests[first : first + work.batch]
            began = time.perf_counter()
            texts, drawn = self._sample(requests, work)
            sampled = time.perf_counter()
            prompts = [turns[-1]["content"] for turns in requests for _ in range(work.candidates)]
            own_rewards, own_scores = self._score(list(zip(prompts, texts, strict=True)))
            sampling_s, scoring_s = (
                sampling_s + sampled - began,
                scoring_s + time.perf_counter() - sampled,
            )
            tokens += drawn
            samples += texts
            rewards += own_rewards
            scores += own_scores
        return Result(sampling_s, scoring_s, tokens, samples, rewards, scores)

    @torch.inference_mode()
    def _sample(self, requests: Sequence[Turns], work: Work) -> tuple[list[str], int]:
        inputs = self._tokenizer.apply_chat_template(
            list(requests),
            add_generation_prompt=True,
            return_tensors="pt",
            padding=True,
            return_dict=True,
        )
        output = self._policy.generate(
            **inputs,
            do_sample=True,
            num_return_sequences=work.candidates,
            max_new_tokens=work.max_tokens,
            temperature=work.temperature,
            top_p=work.top_p,
            top_k=0,
        )
        end = self._tokenizer.eos_token_id
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        drawn = [row[: row.index(end) + 1] if end in row else row for row in rows]
        texts = [self._tokenizer.decode(row, skip_special_tokens=True) for row in drawn]
        return texts, sum(map(len, drawn))

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, batch: int) -> Result:
        """Return rewards and scores of texts that are there already."""
        rewards: list[list[float]] = []
        scores: list[float] = []
        for first in range(0, len(pairs), batch):
            own_rewards, own_scores = self._score(pairs[first : first + batch])
            rewards += own_rewards
            scores += own_scores
        return Result(0.0, 0.0, 0, [text for _, text in pairs], rewards, scores)

    def _score(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[float]], list[float]]:
        texts = [
            text
            for prompt, completion in pairs
            for text in rendered(self._reward_model.tokenizer, Item(prompt, [completion]))
        ]
        scores_B = self._reward_model.score_batch(texts)
        return self._reward_model.last_rewards_BK.tolist(), scores_B.tolist()


def main() -> None:
    """Do the work of a file."""
    parser = argparse.ArgumentParser()
    for name in ("policy", "reward_model", "work", "result"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    work = Work(**json.loads(given.work.read_text()))
    script = PlainScript(given.policy, given.reward_model)
    if work.pairs:
        result = script.score_pairs(work.pairs, batch=work.candidates)
    else:
        # What the first batch costs once is not counted.
        script.run(Work(**{**asdict(work), "requests": work.requests[: work.batch]}))
        result = script.run(work)
    given.result.write_text(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
