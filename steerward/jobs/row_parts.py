"""Parts of a row of an uploaded file: lines, JSON, turns and texts, each refused with its place.

What is wrong is told without what the row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from typing import Any, BinaryIO, cast, get_args

from steerward.protocol.errors import InputTooLong, InvalidRequest, brief
from steerward.protocol.items import Role

Conversation = tuple[dict[str, str], ...]
"""Turns, each with role and content."""

MAX_LINE_BYTES = 1_000_000
_ROLES: tuple[str, ...] = get_args(Role)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Bytes of a line that are no part of its row: the mark, and a line end.
_MOST_AROUND = len(_BYTE_ORDER_MARK) + 2


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
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


def parsed(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        InvalidRequest: If it is none.
    """
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


def turns_of(messages: object, *, place: str) -> Conversation:
    """Return a list of turns, at least one, of which none is looked at beside the others.

    Raises:
        InvalidRequest: If it is none.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(f"{place}: not a list of turns with at least one")
    return tuple(
        _turn(turn, place=f"{place}[{index}]")
        for index, turn in enumerate(cast("list[object]", messages))
    )


def _turn(turn: object, *, place: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise InvalidRequest(f"{place}: not an object with role and content")
    fields = cast("dict[str, object]", turn)
    refuse_unknown(fields, known={"role", "content"}, place=f"{place}.")
    role = fields.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{place}.role: not one of {', '.join(_ROLES)}")
    return {"role": str(role), "content": text(fields.get("content"), place=f"{place}.content")}


def text(value: object, *, place: str) -> str:
    """Return a text in which something stands.

    Raises:
        InvalidRequest: If it is none.
    """
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


def check_order(turns: Conversation) -> None:
    """Refuse turns that no policy answers or would have given.

    Raises:
        InvalidRequest: If they are.
    """
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


def refuse_unknown(fields: Mapping[str, Any], *, known: Set[str], place: str) -> None:
    """Refuse keys that nobody reads.

    Raises:
        InvalidRequest: If there is one.
    """
    for key in fields:
        if key not in known:
            shown = brief(ascii(key)[1:-1])
            raise InvalidRequest(f"{place}{shown}: unknown key; the known are {listed(known)}")


def listed(names: Set[str]) -> str:
    """Return names for people."""
    return ", ".join(sorted(names))
