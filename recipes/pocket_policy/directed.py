"""Third step: the policy learns to answer as a direction says.

Each training example is a direction of the cone and an answer drawn for it, so that under each
direction the policy imitates the text tilted towards it (see `steerward.training.conditioning`).
Some examples have no direction: the policy also answers without.

Axis legend: N answers, V directions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, set_seed

from recipes.pocket_policy.labels import Answers
from recipes.pocket_policy.language import (
    POSITIONS,
    last_checkpoint,
    save_whole,
    training_arguments,
)
from recipes.pocket_policy.rule import ANGLES_DEG, RULE
from steerward.training.batch_order import in_batches_of_like_length
from steerward.training.conditioning import Floats, standardised, tilted_shares

# The cone's rewards then lie about this many standard deviations from the mean of the text.
STRENGTH = 2.5
WITHOUT_DIRECTION = 0.15
EXAMPLES_PER_STEP = 32
_IGNORED = -100

Example = tuple[list[int], int]
"""Token ids, and how many of them are the prompt's."""


def learn_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    *,
    start: Path,
    out: Path,
    learning_rate: float,
    seed: int,
) -> Path:
    """Train on with examples, once each; the learning rate rises to its value and falls to zero.

    Returns:
        The folder of the weights.
    """
    if out.exists():
        return out
    set_seed(seed)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    runs = out.with_name(f"{out.name}-runs")
    places = in_batches_of_like_length(
        [len(ids) for ids, _ in examples], batch_size=EXAMPLES_PER_STEP, order=random.Random(seed)
    )
    arguments = training_arguments(
        runs,
        steps=len(examples) // EXAMPLES_PER_STEP,
        batch_size=EXAMPLES_PER_STEP,
        learning_rate=learning_rate,
        schedule="linear",
        seed=seed,
        sampling="sequential",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Examples([examples[place] for place in places]),
        data_collator=_Padded(tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token))),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    save_whole(model, out)
    return out


def draw_examples(
    answers: Answers, tokenizer: PreTrainedTokenizerFast, *, count: int, seed: int
) -> list[Example]:
    """Return examples: directions by turns, answers by their shares under each."""
    examples: list[Example] = []
    for context, response in draw_turns(answers, seed=seed):
        example = encode_example(tokenizer, context, response)
        if len(example[0]) <= POSITIONS:
            examples.append(example)
        if len(examples) == count:
            break
    return examples


def draw_turns(answers: Answers, *, seed: int) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Yield conversations up to an answer, with it: directions by turns, without end."""
    order = random.Random(seed)
    vectors, systems = directions_and_systems()
    standardised_NM = standardised(answers.rewards_NM, answers.sources)
    shares_VN = tilted_shares(standardised_NM, vectors, strength=STRENGTH)
    numbers = np.random.default_rng(seed)
    while True:
        choices_N = [numbers.choice(len(answers.responses), p=share_N) for share_N in shares_VN]
        for system, n in zip(systems, choices_N, strict=True):
            context = list(answers.contexts[n])
            if order.random() < WITHOUT_DIRECTION:
                # Without a direction all answers count alike.
                n = order.randrange(len(answers.responses))
                context = list(answers.contexts[n])
            else:
                context.insert(0, {"role": "system", "content": system})
            yield context, answers.responses[n]


def directions_and_systems() -> tuple[Floats, list[str]]:
    """Return the directions that training shows, (V, M), and how each is written."""
    directions = [RULE.at_angle(angle) for angle in ANGLES_DEG]
    vectors = [[one.components[name] for name in RULE.objectives] for one in directions]
    return np.array(vectors), [RULE.condition(one).system for one in directions]


def encode_example(
    tokenizer: PreTrainedTokenizerFast, context: Sequence[dict[str, str]], response: str
) -> Example:
    """Return a conversation as the policy reads it, with the length of its prompt."""
    turns = [*context, {"role": "assistant", "content": response}]
    ids: Any = tokenizer.apply_chat_template(turns, return_dict=False)
    prompt: Any = tokenizer.apply_chat_template(
        list(context), add_generation_prompt=True, return_dict=False
    )
    return list(ids), len(prompt)


class _Examples(torch.utils.data.Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


class _Padded:
    """Pads on the right; the loss is on the answers only."""

    def __init__(self, pad: Any) -> None:
        self._pad = pad

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        longest = max(len(ids) for ids, _ in examples)
        shape = (len(examples), longest)
        input_ids = torch.full(shape, self._pad)
        labels = torch.full(shape, _IGNORED)
        for row, (ids, prompt_length) in enumerate(examples):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
        # Causal: what stands on the right of a token does not reach it, padding included.
        return {"input_ids": input_ids, "labels": labels}
