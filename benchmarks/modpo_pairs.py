"""Preference pairs of the shipped policy's own samples, and rewards of its answers, in process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from steerward.models.packing import group_conversations
from steerward.models.reward_model import RewardModel

# Answers that are written, and scored, together.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of the reward model; a minus before its name means that less is better."""

    told: str

    @property
    def name(self) -> str:
        """In the reward model."""
        return self.told.removeprefix("-")

    @property
    def sign(self) -> float:
        """-1 where less is better."""
        return -1.0 if self.told.startswith("-") else 1.0


@torch.no_grad()
def answers_of(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, max_tokens: int, seed: int
) -> list[str]:
    """Return an answer to each prompt at temperature 1, drawn by the seed."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    found: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(texts), _AT_ONCE):
            inputs = tokenizer(
                texts[start : start + _AT_ONCE],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            )
            ids = model.generate(
                **inputs, do_sample=True, temperature=1.0, top_p=1.0, max_new_tokens=max_tokens
            )
            found += tokenizer.batch_decode(
                ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
    # There is no score of nothing at all.
    return [answer if answer.strip() else "." for answer in found]


def rewards_of(
    model: RewardModel, prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, Any]:
    """Return raw rewards by objective, less their reference's mean, in its spreads."""
    groups = [
        group
        for prompt, answer in zip(prompts, answers, strict=True)
        for group in group_conversations(
            model.encode([{"role": "user", "content": prompt}], [answer])
        )
    ]
    parts = [
        model.score(groups[start : start + _AT_ONCE]).rewards_NK.double().numpy()
        for start in range(0, len(groups), _AT_ONCE)
    ]
    rewards_NK = np.concatenate(parts)
    return {
        one.name: (rewards_NK[:, k] - (one.reference_mean or 0.0)) / (one.reference_std or 1.0)
        for k, one in enumerate(model.objectives.objectives)
    }


def correlations(rewards: Mapping[str, Any], first: Objective, *, group: int) -> dict[str, float]:
    """Return how each reward goes with the first among the samples of a prompt, by name."""

    def within(values: Any) -> Any:
        by_prompt = np.asarray(values).reshape(-1, group)
        return (by_prompt - by_prompt.mean(axis=1, keepdims=True)).ravel()

    own = first.sign * within(rewards[first.name])
    return {
        name: float(np.corrcoef(own, within(values))[0, 1])
        for name, values in rewards.items()
        if name != first.name
    }


def most_conflicting(found: Mapping[str, float]) -> Objective:
    """Return the objective, with its sign, that goes most against the first."""
    name = max(found, key=lambda one: abs(found[one]))
    return Objective(name if found[name] < 0 else f"-{name}")


def pairs_of(
    prompts: Sequence[str],
    answers: Sequence[str],
    rewards: Any,
    *,
    group: int,
    num: int,
    seed: int,
) -> Dataset:
    """Return preference pairs: the better answer of a reward is chosen.

    Args:
        prompts: Of the answers, `group` of each one after the other.
        answers: Samples.
        rewards: Of one objective.
        group: Samples of a prompt.
        num: Most pairs of a prompt.
        seed: Of the draw, which does not depend on the rewards.
    """
    order = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(prompts), group):
        places = [(i, j) for i in range(start, start + group) for j in range(i + 1, start + group)]
        for i, j in order.sample(places, min(num, len(places))):
            # Neither is preferred.
            if answers[i] == answers[j] or rewards[i] == rewards[j]:
                continue
            better, worse = (i, j) if rewards[i] > rewards[j] else (j, i)
            rows.append(
                {
                    "prompt": [{"role": "user", "content": prompts[i]}],
                    "chosen": [{"role": "assistant", "content": answers[better]}],
                    "rejected": [{"role": "assistant", "content": answers[worse]}],
                }
            )
    return Dataset.from_list(rows)


def rows_of(pairs: Dataset, num: int, *, seed: int) -> Dataset:
    """Return a number of rows: every pair as often as it fits, and a draw for what is left.

    Args:
        pairs: At least one.
        num: Of rows, in which a training makes one pass.
        seed: Of the draw.
    """
    places = range(len(pairs))
    whole, rest = divmod(num, len(pairs))
    return pairs.select([*places] * whole + sorted(random.Random(seed).sample(places, rest)))


class ExplicitRewards:
    """A source of rewards for runs that has the numbers of a function, by its names.

    Args:
        rewards: Given prompts and answers, returns rewards by objective.
        version: Of the reward model.
    """

    def __init__(self, rewards: Callable[..., Mapping[str, list[float]]], version: str) -> None:
        self._rewards = rewards
        self.version = version

    def __call__(self, names: Sequence[str]) -> list[Any]:
        """Return a reward function for each objective."""
        return [partial(self._column, name) for name in names]

    def _column(self, name: str, prompts: Any, completions: Any, **_: Any) -> list[float]:
        texts = [[turns[-1]["content"] for turns in each] for each in (prompts, completions)]
        return self._rewards(*texts)[name]
