"""What a policy's answers to held-out prompts are worth, before, while and after it is trained."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.rows import PromptRow

RewardFunction = Callable[..., Any]
"""Of TRL: called with prompts, completions and all columns; a number or None for each."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rewards of the answers to held-out prompts, in the prompts' order."""

    rewards: Mapping[str, list[float | None]]
    """By column."""
    characters: list[int]
    """Lengths of the answers."""

    def means(self) -> dict[str, float]:
        """Return the mean of each column over the prompts that have one."""
        found = {
            name: [v for v in values if v is not None] for name, values in self.rewards.items()
        }
        return {name: sum(values) / len(values) for name, values in found.items() if values}


class HeldOut:
    """Held-out prompts, answered with the same random numbers each time.

    Args:
        rows: The prompts.
        functions: Reward columns.
        tokenizer: Pads on the left.
        max_tokens: Longest answer.
        temperature: Of sampling.
        batch_size: Prompts that are answered together.
        seed: Of sampling.
    """

    def __init__(
        self,
        rows: Sequence[PromptRow],
        functions: Sequence[RewardFunction],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self._rows = rows
        self._functions = functions
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._batch_size = batch_size
        self._seed = seed

    def measure(self, model: Any) -> Measured:
        """Answer the prompts and score the answers; the training's random numbers stay.

        Raises:
            SteerwardError: Why there are no rewards.
        """
        answers = self._answers(model)
        prompts = [[dict(turn) for turn in row.messages] for row in self._rows]
        completions = [[{"role": "assistant", "content": answer}] for answer in answers]
        columns = columns_of(self._rows)
        rewards = {
            function.__name__: _called(function, prompts, completions, columns)
            for function in self._functions
        }
        return Measured(rewards, [len(answer) for answer in answers])

    @torch.no_grad()
    def _answers(self, model: Any) -> list[str]:
        was_training = model.training
        model.eval()
        devices = [model.device] if model.device.type == "cuda" else []
        found: list[str] = []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self._seed)
                for begin in range(0, len(self._rows), self._batch_size):
                    found += self._answer(model, self._rows[begin : begin + self._batch_size])
        finally:
            model.train(was_training)
        return found

    def _answer(self, model: Any, rows: Sequence[PromptRow]) -> list[str]:
        texts: Any = [
            self._tokenizer.apply_chat_template(
                [dict(turn) for turn in row.messages], add_generation_prompt=True, tokenize=False
            )
            for row in rows
        ]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(model.device)
        ids = model.generate(
            **inputs,
            do_sample=True,
            temperature=self._temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=self._max_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        answers = self._tokenizer.batch_decode(
            ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        # Nothing at all cannot be scored.
        return [answer if answer.strip() else "." for answer in answers]


def columns_of(rows: Sequence[PromptRow]) -> dict[str, list[Any]]:
    """Return the columns of rows by name; None where a row has none."""
    names = sorted({name for row in rows for name in row.columns})
    return {name: [row.columns.get(name) for row in rows] for name in names}


def _called(
    function: RewardFunction,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
) -> list[float | None]:
    found = function(prompts=prompts, completions=completions, **columns)
    values = asyncio.run(found) if inspect.isawaitable(found) else found  # pyright: ignore
    if len(values) != len(prompts):
        raise InvalidRequest(
            f"the reward {function.__name__!r} gave {len(values)} numbers for {len(prompts)} "
            "completions; it must give one each, or None"
        )
    for value in values:
        if value is not None and not math.isfinite(value):
            raise InvalidRequest(
                f"the reward {function.__name__!r} gave {value}; give a number, or None where it "
                "does not apply"
            )
    return [None if value is None else float(value) for value in values]
