"""Rows of MAPL as token ids, and batches in which original, intra and inter rows stand together.

The model reads two conversations of an original or intra row and four of an inter row, all in one
forward pass:

    chosen of all rows, y_w behind x of inter rows | rejected of all rows, y_l behind x of them

which to TRL is a batch of pairs like any other. Nothing is ever cut.

Axis legend: N rows, R rows with the pairs of inter rows without instructions behind them, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steerward.models.chat import ChatEncoder, Turn
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.mapl.loss import INTER, INTRA, PARTS, PREFERENCE
from steerward.training.align.mapl.rows import InterRow, IntraRow
from steerward.training.align.rows import PairRow
from steerward.training.sft_data import encode_example

Row = PairRow | IntraRow | InterRow
RowOrRows = Row | tuple[Row, ...]
"""A row, or rows that are left out together if one of them is too long."""
Conversation = tuple[Sequence[Turn], str]
"""A prompt and a response."""

SIDES = ("chosen", "rejected", "without_chosen", "without_rejected")
COLUMNS = (
    "part",
    "direction",
    *(f"{side}_ids" for side in SIDES),
    *(f"{side}_start" for side in SIDES),
)
"""Of a data set. The starts are where responses begin; the last two sides are of inter rows."""


class Encoder:
    """Writes conversations as the trained model will read them when it is served.

    Args:
        encoder: Of the checkpoint's chat template.
        max_tokens: Rows with a longer conversation are left out.
        end_tokens: At which a policy's completions end; None for reward models, which read the
            whole conversation.
    """

    def __init__(
        self,
        encoder: ChatEncoder,
        *,
        max_tokens: int,
        end_tokens: Collection[int] | None = None,
    ) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._end_tokens = end_tokens

    def encode(self, conversation: Conversation) -> tuple[list[int], int] | None:
        """Return ids and where the response begins; None if there are too many.

        Raises:
            InvalidRequest: If the template refuses the turns.
        """
        prompt, response = conversation
        if self._end_tokens is None:
            encoded = self._encoder.encode(prompt, [response])[0]
            ids, start = encoded.ids, encoded.prompt_length
        else:
            turns = [*map(dict, prompt), {"role": "assistant", "content": response}]
            example = encode_example(self._encoder, turns, end_tokens=self._end_tokens)
            ids, start = example.ids_T, example.prompt_length
        return (ids, start) if len(ids) <= self._max_tokens else None


def rows_together(one: RowOrRows) -> tuple[Row, ...]:
    """Return rows that are left out together, also where it is one."""
    return one if isinstance(one, tuple) else (one,)


def conversations_of(row: Row) -> list[Conversation]:
    """Return the conversations of a row, in the order of SIDES."""
    if isinstance(row, PairRow):
        return [(row.messages, row.chosen), (row.messages, row.rejected)]
    if isinstance(row, IntraRow):
        return [(row.prompt_chosen, row.response), (row.prompt_rejected, row.response)]
    prompts = (row.prompt_with, row.prompt)
    return [(prompt, response) for prompt in prompts for response in (row.chosen, row.rejected)]


def reward_columns(rows: Sequence[IntraRow]) -> dict[str, list[Any]]:
    """Return intra rows as TRL's own RewardTrainer takes them: no prompt, two conversations."""
    found: dict[str, list[Any]] = {"chosen": [], "rejected": []}
    for row in rows:
        for side, (prompt, response) in zip(found.values(), conversations_of(row), strict=True):
            side.append([*map(dict, prompt), {"role": "assistant", "content": response}])
    return found


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as a data set with COLUMNS."""

    dataset: Dataset
    left_out: int
    """Rows with a conversation over the limit, and those that go with them."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each part."""
        found = Counter(self.dataset["part"])
        return {name: found[part] for part, name in enumerate(PARTS)}


def encode_rows(rows: Sequence[RowOrRows], encoder: Encoder) -> Encoded:
    """Return rows of any part as a data set, in their order.

    Args:
        rows: To encode; of some that belong together all fit, or all are left out.
        encoder: With the limit.

    Raises:
        DatasetRefused: If none fits.
        InvalidRequest: If the chat template refuses a prompt.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    num = 0
    for some in map(rows_together, rows):
        num += len(some)
        encoded = [[encoder.encode(one) for one in conversations_of(row)] for row in some]
        if any(side is None for sides in encoded for side in sides):
            continue
        for row, sides in zip(some, encoded, strict=True):
            _add(columns, row, sides)
    if not columns["part"]:
        raise DatasetRefused(
            f"none of {num:,} rows is short enough for max_tokens; raise it or give shorter "
            "conversations"
        )
    return Encoded(Dataset.from_dict(columns), num - len(columns["part"]))


def _add(
    columns: Mapping[str, list[Any]], row: Row, sides: Sequence[tuple[list[int], int] | None]
) -> None:
    columns["part"].append(_part(row))
    columns["direction"].append(row.direction if isinstance(row, InterRow) else 1)
    for place, name in enumerate(SIDES):
        ids, start = (sides[place] if place < len(sides) else None) or ([], 0)
        columns[f"{name}_ids"].append(ids)
        columns[f"{name}_start"].append(start)


def _part(row: Row) -> int:
    if isinstance(row, PairRow):
        return PREFERENCE
    return INTRA if isinstance(row, IntraRow) else INTER


def check_columns(names: Collection[str]) -> None:
    """Refuse a data set that `encode_rows` did not make.

    Raises:
        InvalidRequest: With the first column that is missing.
    """
    for name in COLUMNS:
        if name not in names:
            raise InvalidRequest(
                f"the data set has no column {name!r}; make it of rows by encode_rows"
            )


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes one batch of rows, padded on the right."""

    padding: int
    """Token to pad with. No conversation of a reward model may end in it."""
    has_completions: bool = False
    """Whether to mark the tokens of responses, as a policy needs it."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch: what TRL's collators give, and the parts and directions of rows."""
        inter = [row for row in rows if row["part"] == INTER]
        sequences = [
            (row[f"{before}{side}_ids"], row[f"{before}{side}_start"])
            for side in ("chosen", "rejected")
            for before, some in (("", rows), ("without_", inter))
            for row in some
        ]
        ids = [torch.tensor(one) for one, _ in sequences]
        batch = {
            # First: transformers takes the length of the first tensor for the number of rows.
            "parts": torch.tensor([row["part"] for row in rows]),
            "directions": torch.tensor([row["direction"] for row in rows]),
            "input_ids": self._padded(ids, self.padding),
            "attention_mask": self._padded([torch.ones_like(one) for one in ids], 0),
        }
        if self.has_completions:
            marks = [
                (torch.arange(len(one)) >= start).long()
                for one, (_, start) in zip(ids, sequences, strict=True)
            ]
            batch["completion_mask"] = self._padded(marks, 0)
        elif any(one[-1] == self.padding for one in ids):
            raise InvalidRequest(
                f"a conversation ends in token {self.padding}, which is also padded with; the "
                "model would be read one token before its end. Give the tokenizer a pad token of "
                "its own"
            )
        return batch

    def _padded(self, sequences: Sequence[Tensor], value: int) -> Tensor:
        return pad_sequence(list(sequences), batch_first=True, padding_value=value)


def without_parts(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return what a model reads of a batch, then parts_N and directions_N."""
    read = dict(batch)
    return read, read.pop("parts"), read.pop("directions")
