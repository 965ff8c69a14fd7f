"""Rows of uploaded files: what each must be, and how they are read again.

A row is ``{"prompt": "..."}`` or ``{"messages": [...]}``; `id` and `metadata` may stand beside
and are ignored. All rows of a file end with a user (or tool) turn, or all with the assistant's.
What is wrong is told with the line, never with what the row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

from steerward.protocol.errors import InputTooLong, InvalidRequest, brief
from steerward.protocol.files import FileContents
from steerward.protocol.items import Role

Conversation = tuple[dict[str, str], ...]
"""Turns, each with role and content."""
RowKind = Literal["prompts", "conversations"]

MAX_LINE_BYTES = 1_000_000
_ROLES: tuple[str, ...] = get_args(Role)
_IGNORED = frozenset({"id", "metadata"})
_ENDS: Mapping[FileContents, str] = {
    "prompts": "a user or tool turn",
    "conversations": "an assistant turn",
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Bytes of a line that are no part of its row: the mark, and a line end.
_MOST_AROUND = len(_BYTE_ORDER_MARK) + 2


@dataclass(frozen=True, slots=True)
class RowSummary:
    """What a file of rows holds."""

    rows: int
    holds: RowKind


def check_rows(path: Path, *, max_rows: int) -> RowSummary:
    """Read a file to its end, and return what it holds.

    Raises:
        InvalidRequest: If a row is wrong or there is none; the line is named.
        InputTooLong: If a line or the file is longer than may be.
    """
    num_rows = 0
    first: tuple[int, RowKind] | None = None
    for number, turns in _conversations(path):
        num_rows += 1
        if num_rows > max_rows:
            raise InputTooLong(
                f"line {number}: more than {max_rows:,} rows; split the file, or start the server "
                f"with max_file_rows above {max_rows}"
            )
        kind = _kind(turns)
        if first is None:
            first = (number, kind)
        elif kind != first[1]:
            raise InvalidRequest(
                f"line {number}: ends with {_ENDS[kind]}, and line {first[0]} with "
                f"{_ENDS[first[1]]}; put prompts and whole conversations into files of their own"
            )
    if first is None:
        raise InvalidRequest("the file has no rows; give one JSON object a line")
    return RowSummary(num_rows, first[1])


def read_prompts(path: Path) -> list[Conversation]:
    """Return the prompts of a file, each a conversation that ends with the user's turn.

    Raises:
        InvalidRequest: If a row is wrong, or ends with the assistant's turn.
        InputTooLong: If a line is longer than may be.
    """
    return _read(path, "prompts")


def read_conversations(path: Path) -> list[Conversation]:
    """Return the conversations of a file, each of which ends with the assistant's turn.

    Raises:
        InvalidRequest: If a row is wrong, or ends with another turn.
        InputTooLong: If a line is longer than may be.
    """
    return _read(path, "conversations")


def _read(path: Path, kind: RowKind) -> list[Conversation]:
    found: list[Conversation] = []
    for number, turns in _conversations(path):
        if _kind(turns) != kind:
            raise InvalidRequest(
                f"line {number}: ends with {_ENDS[_kind(turns)]}; {kind} end with {_ENDS[kind]}"
            )
        found.append(turns)
    return found


def _conversations(path: Path) -> Iterator[tuple[int, Conversation]]:
    with path.open("rb") as file:
        for number, line in _lines(file):
            try:
                turns = _turns(_parsed(line))
            except InvalidRequest as error:
                raise InvalidRequest(f"line {number}: {error.message}") from None
            yield number, turns


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    number = 0
    # A file without line ends must not be read whole to be refused.
    while line := file.readline(MAX_LINE_BYTES + _MOST_AROUND):
        number += 1
        line = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        line = line.rstrip(b"\r\n")
        if len(line) > MAX_LINE_BYTES:
            raise InputTooLong(
                f"line {number}: more than {MAX_LINE_BYTES:,} bytes; shorten the row, and end "
                "each with a line end"
            )
        if line.strip():
            yield number, line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row: object = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"not UTF-8 at byte {error.start}; is it a text file?") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"not JSON at character {error.pos + 1}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("JSON with a number too long or nested too deeply") from None
    if not isinstance(row, dict):
        raise InvalidRequest('not a JSON object; give {"prompt": ...} or {"messages": [...]}')
    return cast("dict[str, Any]", row)


def _turns(row: Mapping[str, Any]) -> Conversation:
    _refuse_unknown(row, known={"prompt", "messages", *_IGNORED}, place="")
    if ("prompt" in row) == ("messages" in row):
        raise InvalidRequest("give either prompt or messages")
    if "prompt" in row:
        return ({"role": "user", "content": _text(row["prompt"], place="prompt")},)
    messages: object = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: not a list of turns with at least one")
    turns = tuple(
        _turn(turn, place=f"messages[{index}]")
        for index, turn in enumerate(cast("list[object]", messages))
    )
    _check_order(turns)
    return turns


def _turn(turn: object, *, place: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise InvalidRequest(f"{place}: not an object with role and content")
    fields = cast("dict[str, object]", turn)
    _refuse_unknown(fields, known={"role", "content"}, place=f"{place}.")
    role = fields.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{place}.role: not one of {', '.join(_ROLES)}")
    return {"role": str(role), "content": _text(fields.get("content"), place=f"{place}.content")}


def _text(value: object, *, place: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{place}: not a string")
    if not value.strip():
        raise InvalidRequest(f"{place}: empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{place}: not Unicode text: a lone surrogate at position {error.start}"
        ) from None
    return value


def _check_order(turns: Conversation) -> None:
    last = turns[-1]["role"]
    if last == "system":
        raise InvalidRequest("messages: end with a system turn; end with the user's or assistant's")
    prompt = turns[:-1] if last == "assistant" else turns
    if not any(turn["role"] == "user" for turn in prompt):
        raise InvalidRequest("messages: no user turn to answer")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise InvalidRequest(
            f"messages[{len(prompt) - 1}]: of role {prompt[-1]['role']}, before the assistant's "
            "last; that answers a user or tool turn"
        )


def _refuse_unknown(fields: Mapping[str, Any], *, known: set[str], place: str) -> None:
    for key in fields:
        if key not in known:
            shown = brief(ascii(key)[1:-1])
            raise InvalidRequest(f"{place}{shown}: unknown key; the known are {_listed(known)}")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _kind(turns: Conversation) -> RowKind:
    return "conversations" if turns[-1]["role"] == "assistant" else "prompts"
