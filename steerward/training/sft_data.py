"""Examples for fine-tuning a policy: token ids as the policy reads and writes them when served.

A prompt is encoded exactly as the server encodes it, special tokens in content staying text; the
loss is on the tokens of the last answer and on the one that closes it, and nothing follows that.
Nothing is ever cut.

Axis legend: T tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from datasets import Dataset
from pydantic import Field, ValidationError

from steerward.models.chat import ChatEncoder
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.protocol.items import Role
from steerward.protocol.wire import AnswerModel, Text
from steerward.training.batch_order import in_batches_of_like_length

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as the policy reads it."""

    ids_T: list[int]
    prompt_length: int
    """Tokens that are read; the others are learned."""

    @property
    def labels(self) -> list[int]:
        """What is to be predicted at each position."""
        return [IGNORED] * self.prompt_length + self.ids_T[self.prompt_length :]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a file gives to learn from."""

    kept: list[Example]
    """In the order of the file."""
    left_out: int
    """Conversations that the policy could not read, or could not have written."""


class _Turn(AnswerModel):
    role: Role
    content: Text


class _Row(AnswerModel):
    messages: Annotated[list[_Turn], Field(min_length=2)]


def read_examples(
    path: Path, encoder: ChatEncoder, *, end_tokens: Collection[int], max_positions: int
) -> Examples:
    """Return the examples of a file.

    Conversations that do not fit are left out and counted: text that others wrote may be too
    long, and a completion that was drawn may take more tokens when it is encoded again.

    Args:
        path: JSON lines, {"messages": [...]} each, the last turn the assistant's.
        encoder: Of the policy.
        end_tokens: At which its completions end.
        max_positions: Longest conversation that it reads, in tokens.

    Raises:
        DatasetRefused: With the first row that is no conversation, or if none fits.
    """
    kept: list[Example] = []
    reasons: list[str] = []
    for number, messages in _rows(path):
        try:
            example = encode_example(encoder, messages, end_tokens=end_tokens)
            if len(example.ids_T) > max_positions:
                raise InvalidRequest(
                    f"{len(example.ids_T):,} tokens, and the policy reads {max_positions:,}; "
                    "shorten the row"
                )
        except InvalidRequest as error:
            reasons.append(f"row {number}: {error.message}")
            continue
        kept.append(example)
    if not kept:
        why = f"none of its {len(reasons):,} rows fits: {reasons[0]}" if reasons else "it is empty"
        raise DatasetRefused(f"{path} holds no example to learn from; {why}")
    return Examples(kept, len(reasons))


def _rows(path: Path) -> Iterator[tuple[int, list[dict[str, str]]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _Row.model_validate(json.loads(line))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"]) or "row"
                raise DatasetRefused(f"{path}, row {number}: {place}: {first['msg']}") from None
            except ValueError as error:
                raise DatasetRefused(f"{path}, row {number}: no JSON: {error}") from None
            if row.messages[-1].role != "assistant":
                raise DatasetRefused(
                    f"{path}, row {number}: the last turn is of {row.messages[-1].role!r}; it must "
                    "be the assistant's, which is what is learned"
                )
            yield number, [{"role": t.role, "content": t.content} for t in row.messages]


def encode_example(
    encoder: ChatEncoder, messages: Sequence[dict[str, str]], *, end_tokens: Collection[int]
) -> Example:
    """Return a conversation whose last turn is the completion to learn.

    Raises:
        InvalidRequest: If the template writes an answered prompt otherwise than one to be
            answered, or does not close the answer with an end token.
    """
    context, answer = messages[:-1], messages[-1]["content"]
    prompt_T = encoder.encode_prompt(context)
    ids_T = encoder.encode(context, [answer])[0].ids
    length = len(prompt_T)
    if ids_T[:length] != prompt_T:
        raise InvalidRequest(
            "with this answer, the chat template or the tokenizer writes the prompt otherwise "
            "than it is served, so the policy would learn from what it never reads; give the "
            "checkpoint a template whose generation prompt is how answers begin"
        )
    # Content holds no special token, so the first one behind the prompt closes the answer.
    end = next((i for i in range(length, len(ids_T)) if ids_T[i] in end_tokens), None)
    if end is None:
        raise InvalidRequest(
            "the chat template does not close the assistant's turn with a token at which the "
            "policy ends; name it in eos_token_id of generation_config.json"
        )
    return Example(ids_T[: end + 1], length)


def ordered(
    examples: Sequence[Example], *, epochs: int, batch_size: int, seed: int
) -> list[Example]:
    """Return the examples of all epochs in the order in which they are learned.

    Each epoch has its own order, in which those of a step have about the same length.
    """
    order = random.Random(seed)
    found: list[Example] = []
    for _ in range(epochs):
        found += _epoch(examples, batch_size, order)
    return found


def _epoch(examples: Sequence[Example], batch_size: int, order: random.Random) -> list[Example]:
    lengths = [len(example.ids_T) for example in examples]
    places = in_batches_of_like_length(lengths, batch_size=batch_size, order=order)
    return [examples[place] for place in places]


def as_dataset(examples: Sequence[Example]) -> Dataset:
    """Return examples as TRL takes them when they are already encoded and labelled."""
    return Dataset.from_dict(
        {
            "input_ids": [example.ids_T for example in examples],
            "labels": [example.labels for example in examples],
        }
    )
