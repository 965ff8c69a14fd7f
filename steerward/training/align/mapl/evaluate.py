"""How often a reward model is right about rows that training has not seen.

Axis legend: N conversations, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from steerward.protocol.errors import DatasetRefused, TrainingFailed
from steerward.training.align.mapl.batch import (
    Conversation,
    Encoder,
    Row,
    RowOrRows,
    rows_together,
)
from steerward.training.align.mapl.rows import IntraRow
from steerward.training.align.rows import PairRow

ORIGINAL, INTER, INTRA = "original_pairs", "followed_instructions", "told_prompts_apart"
COLUMNS = (ORIGINAL, INTER, INTRA)
"""What is measured: the preferred response of original pairs; behind a prompt with instructions,
the response that meets them; behind the prompt that it follows better, the same response."""


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Rows that a model is right about, 1, or wrong about, 0; half for equal rewards."""

    right: Mapping[str, list[float | None]]
    """By column, for all rows in one order; None where a row is of another column."""
    characters: list[int]
    """Length of the response that the model preferred, for each row."""

    def means(self) -> dict[str, float]:
        """Return the share of rows of each column that the model is right about."""
        found = {name: [one for one in of if one is not None] for name, of in self.right.items()}
        return {name: sum(of) / len(of) for name, of in found.items()}


@dataclass(frozen=True, slots=True)
class _Item:
    column: str
    ids: tuple[list[int], list[int]]
    """Of the conversation that should have the higher reward, and of the other."""
    characters: tuple[int, int]


class HeldOutRows:
    """Rows to be right about.

    Args:
        rows: Original pairs, inter rows and intra rows; of some that belong together all are short
            enough, or all are left out.
        encoder: As in training.
        padding: Token to pad with.
        batch_size: Conversations in a forward pass.

    Raises:
        DatasetRefused: If no row of a column is short enough.
    """

    def __init__(
        self,
        rows: Sequence[RowOrRows],
        encoder: Encoder,
        *,
        padding: int,
        batch_size: int,
    ) -> None:
        self._items: list[_Item] = []
        self.left_out = 0
        """Rows with a conversation over the encoder's limit, and those that go with them."""
        for some in map(rows_together, rows):
            items = [_item(row, encoder) for row in some]
            kept = [item for item in items if item is not None]
            if len(kept) == len(items):
                self._items += kept
            else:
                self.left_out += len(items)
        self._padding = padding
        self._batch_size = batch_size
        for name in COLUMNS:
            if not any(item.column == name for item in self._items):
                raise DatasetRefused(
                    f"of {self.left_out + len(self._items)} held-out rows, none of {name!r} is "
                    "short enough for max_tokens; raise it, or hold out more"
                )

    def measure(self, model: Any) -> Accuracies:
        """Return which rows a model is right about; it stays in the mode it is in.

        Raises:
            TrainingFailed: If a reward is no number.
        """
        texts = [ids for item in self._items for ids in item.ids]
        was_training = model.training
        model.eval()
        try:
            rewards = self._rewards(model, texts)
        finally:
            model.train(was_training)
        right: dict[str, list[float | None]] = {name: [] for name in COLUMNS}
        characters: list[int] = []
        for item, first, second in zip(self._items, rewards[::2], rewards[1::2], strict=True):
            is_right = 0.5 if first == second else float(first > second)
            for name, values in right.items():
                values.append(is_right if name == item.column else None)
            characters.append(item.characters[0 if first >= second else 1])
        return Accuracies(right, characters)

    @torch.no_grad()
    def _rewards(self, model: Any, texts: Sequence[list[int]]) -> list[float]:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, float] = {}
        for begin in range(0, len(order), self._batch_size):
            places = order[begin : begin + self._batch_size]
            ids = [torch.tensor(texts[place], device=model.device) for place in places]
            ids_NT = pad_sequence(ids, batch_first=True, padding_value=self._padding)
            mask_NT = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
            rewards_N = model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False).logits
            if not bool(torch.isfinite(rewards_N).all()):
                raise TrainingFailed("a reward of held-out rows is no number; lower learning_rate")
            found.update(zip(places, rewards_N.squeeze(-1).tolist(), strict=True))
        return [found[place] for place in range(len(texts))]


def _item(row: Row, encoder: Encoder) -> _Item | None:
    column, sides = _sides(row)
    encoded = [encoder.encode(side) for side in sides]
    if encoded[0] is None or encoded[1] is None:
        return None
    (_, first), (_, second) = sides
    return _Item(column, (encoded[0][0], encoded[1][0]), (len(first), len(second)))


def _sides(row: Row) -> tuple[str, tuple[Conversation, Conversation]]:
    if isinstance(row, PairRow):
        return ORIGINAL, ((row.messages, row.chosen), (row.messages, row.rejected))
    if isinstance(row, IntraRow):
        return INTRA, ((row.prompt_chosen, row.response), (row.prompt_rejected, row.response))
    meets, violates = row.ends
    return INTER, ((row.prompt_with, meets), (row.prompt_with, violates))
