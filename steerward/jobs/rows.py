"""Rows of uploaded files: what each must be, and how they are read again.

A row is ``{"prompt": "..."}`` or ``{"messages": [...]}``. All rows of a file end with a user (or
tool) turn, or all with the assistant's, or all are preferences (`steerward.jobs.preferences`). What
judges read of a row stands beside it: under the names that they expect (`JUDGED`), or under any
other in an object `columns`. `id` and `metadata` are ignored. What is wrong is told with the line,
never with what the row says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steerward.jobs.preferences import PAIR, Pair, is_preference, pair_of
from steerward.jobs.row_columns import JUDGED, columns_of
from steerward.jobs.row_parts import (
    Conversation,
    check_order,
    lines,
    parsed,
    refuse_unknown,
    text,
    turns_of,
)
from steerward.protocol.errors import InputTooLong, InvalidRequest
from steerward.protocol.files import FileContents

RowKind = Literal["prompts", "conversations", "preferences"]

_IGNORED = frozenset({"id", "metadata"})
_PROMPT = frozenset({"prompt", "messages"})
_ENDS: Mapping[FileContents, str] = {
    "prompts": "a user or tool turn",
    "conversations": "an assistant turn",
    "preferences": "two responses, chosen and rejected",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file."""

    turns: Conversation
    """Of the prompt, or of the whole conversation."""
    columns: Mapping[str, Any]
    """What else judges and trainers read of it."""
    pair: Pair | None = None
    """Of a preference: two responses to the prompt."""

    @property
    def num_margins(self) -> int:
        """Objectives whose rewards a preference brings itself."""
        return 0 if self.pair is None else self.pair.num_margins

    @property
    def kind(self) -> RowKind:
        """What the row is."""
        if self.pair is not None:
            return "preferences"
        return "conversations" if self.turns[-1]["role"] == "assistant" else "prompts"


@dataclass(frozen=True, slots=True)
class RowSummary:
    """What a file of rows holds."""

    rows: int
    holds: RowKind
    num_margins: int = 0
    """Objectives whose rewards each preference brings itself."""


def check_rows(path: Path, *, max_rows: int) -> RowSummary:
    """Read a file to its end, and return what it holds.

    Raises:
        InvalidRequest: If a row is wrong or there is none; the line is named.
        InputTooLong: If a line or the file is longer than may be.
    """
    num_rows = 0
    first: tuple[int, Row] | None = None
    for number, row in _rows(path):
        num_rows += 1
        if num_rows > max_rows:
            raise InputTooLong(
                f"line {number}: more than {max_rows:,} rows; split the file, or start the server "
                f"with max_file_rows above {max_rows}"
            )
        if first is None:
            first = (number, row)
        _check_alike(number, row, first=first)
    if first is None:
        raise InvalidRequest("the file has no rows; give one JSON object a line")
    return RowSummary(num_rows, first[1].kind, first[1].num_margins)


def _check_alike(number: int, row: Row, *, first: tuple[int, Row]) -> None:
    first_number, first_row = first
    if row.kind != first_row.kind:
        raise InvalidRequest(
            f"line {number}: ends with {_ENDS[row.kind]}, and line {first_number} with "
            f"{_ENDS[first_row.kind]}; put prompts, whole conversations and preferences into files "
            "of their own"
        )
    if row.num_margins != first_row.num_margins:
        raise InvalidRequest(
            f"line {number}: has margins of {row.num_margins} objectives, and line {first_number} "
            f"of {first_row.num_margins}; give those of all objectives in every row, or in none"
        )


def num_margins(path: Path) -> int:
    """Return of how many objectives each preference of a file that was checked brings rewards.

    Raises:
        InvalidRequest: If its first row is no preference.
    """
    return next(read_rows(path, "preferences")).num_margins


def read_prompts(path: Path) -> list[Conversation]:
    """Return the prompts of a file, each a conversation that ends with the user's turn.

    Raises:
        InvalidRequest: If a row is wrong, or ends with the assistant's turn.
        InputTooLong: If a line is longer than may be.
    """
    return [row.turns for row in read_rows(path, "prompts")]


def read_conversations(path: Path) -> list[Conversation]:
    """Return the conversations of a file, each of which ends with the assistant's turn.

    Raises:
        InvalidRequest: If a row is wrong, or ends with another turn.
        InputTooLong: If a line is longer than may be.
    """
    return [row.turns for row in read_rows(path, "conversations")]


def read_rows(path: Path, kind: RowKind) -> Iterator[Row]:
    """Yield the rows of a file one by one.

    Raises:
        InvalidRequest: If a row is wrong, or of another kind.
        InputTooLong: If a line is longer than may be.
    """
    for number, row in _rows(path):
        if row.kind != kind:
            raise InvalidRequest(
                f"line {number}: ends with {_ENDS[row.kind]}; {kind} end with {_ENDS[kind]}"
            )
        yield row


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, line in lines(file):
            try:
                row = _row(parsed(line))
            except InvalidRequest as error:
                raise InvalidRequest(f"line {number}: {error.message}") from None
            yield number, row


def _row(fields: Mapping[str, Any]) -> Row:
    if is_preference(fields):
        refuse_unknown(fields, known={*_PROMPT, *PAIR, *JUDGED, *_IGNORED}, place="")
        prompt, pair = pair_of(fields)
        return Row(_turns(prompt), {**columns_of(fields), **pair.margins}, pair)
    refuse_unknown(fields, known={*_PROMPT, *JUDGED, *_IGNORED}, place="")
    return Row(_turns(fields), columns_of(fields))


def _turns(fields: Mapping[str, Any]) -> Conversation:
    if ("prompt" in fields) == ("messages" in fields):
        raise InvalidRequest("give either prompt or messages")
    if "prompt" in fields:
        return ({"role": "user", "content": text(fields["prompt"], place="prompt")},)
    turns = turns_of(fields["messages"], place="messages")
    check_order(turns)
    return turns
