"""Rows that policies are aligned on: prompts with what judges need to know, and preference pairs.

What is wrong is told with the row, never with what the row says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from steerward.protocol.errors import DatasetRefused, brief
from steerward.training.data.rows import read_objects

_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, and the other columns of its row."""

    messages: tuple[Mapping[str, str], ...]
    columns: Mapping[str, Any]
    place: str = field(default="a row", compare=False)
    """File and number of the row, as messages name it."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """A prompt with two responses, the preferred one first, and the other columns of its row."""

    messages: tuple[Mapping[str, str], ...]
    chosen: str
    rejected: str
    columns: Mapping[str, Any]
    place: str = field(default="a row", compare=False)
    """File and number of the row, as messages name it."""


RowT = TypeVar("RowT", PromptRow, PairRow)


def read_prompts(path: Path) -> list[PromptRow]:
    """Return the prompts of a file: {"prompt": text or turns} or {"messages": turns}.

    Raises:
        DatasetRefused: If a row is none, or there is none.
    """
    found: list[PromptRow] = []
    for place, row in _objects(path):
        messages, columns = _prompt(row, place)
        found.append(PromptRow(messages, columns, place))
    return _some(found, path)


def read_pairs(path: Path) -> list[PairRow]:
    """Return the pairs of a file: a prompt as above, with `chosen` and `rejected`.

    Each of the two is text, or turns of which the last is the response.

    Raises:
        DatasetRefused: If a row is none, or there is none.
    """
    found: list[PairRow] = []
    for place, row in _objects(path):
        for key in ("chosen", "rejected"):
            if key not in row:
                raise DatasetRefused(f"{place}: no {key}; a pair has prompt, chosen and rejected")
        messages, columns = _prompt(row, place)
        chosen, rejected = (
            _response(columns[key], f"{place}: {key}") for key in ("chosen", "rejected")
        )
        if chosen == rejected:
            raise DatasetRefused(f"{place}: chosen and rejected are equal; remove the row")
        rest = {key: value for key, value in columns.items() if key not in ("chosen", "rejected")}
        found.append(PairRow(messages, chosen, rejected, rest, place))
    return _some(found, path)


def split_held_out(rows: Sequence[RowT], *, num: int) -> tuple[list[RowT], list[RowT]]:
    """Return the rows to train on, and those held out: at most a tenth, and whole prompts.

    By the rows alone, so that runs of all seeds, methods and weights are measured alike. A prompt
    with more rows than may still be held out is trained on.
    """
    num = min(num, int(len(rows) * _HELD_OUT_SHARE))
    prompts: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, row in enumerate(rows):
        prompt = tuple((turn["role"], turn["content"]) for turn in row.messages)
        prompts.setdefault(prompt, []).append(place)
    out: set[int] = set()
    for places in sorted(prompts.values(), key=lambda some: _digest(rows[some[0]], some[0])):
        if len(out) + len(places) <= num:
            out.update(places)
    kept = [row for place, row in enumerate(rows) if place not in out]
    return kept, [rows[place] for place in sorted(out)]


def _digest(row: PromptRow | PairRow, place: int) -> bytes:
    told = json.dumps([place, [dict(turn) for turn in row.messages]], sort_keys=True)
    return hashlib.sha256(told.encode()).digest()


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in read_objects(path):
        yield f"{path.name}, row {number}", row


def _prompt(
    row: Mapping[str, Any], place: str
) -> tuple[tuple[Mapping[str, str], ...], dict[str, Any]]:
    keys = [key for key in ("prompt", "messages") if key in row]
    if len(keys) != 1:
        raise DatasetRefused(f"{place}: give either prompt or messages")
    given = row[keys[0]]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(turns, list) or not turns:
        raise DatasetRefused(f"{place}: {keys[0]} is neither text nor a list of turns")
    messages = tuple(_turn(turn, place) for turn in cast("list[object]", turns))
    if messages[-1]["role"] not in ("user", "tool"):
        raise DatasetRefused(
            f"{place}: the prompt ends with a turn of {brief(messages[-1]['role'])!r}; end it with "
            "the user's"
        )
    return messages, {key: value for key, value in row.items() if key != keys[0]}


def _turn(turn: object, place: str) -> Mapping[str, str]:
    fields = cast("dict[str, object]", turn) if isinstance(turn, dict) else {}
    role, content = fields.get("role"), fields.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise DatasetRefused(f"{place}: a turn is no object with role and content, both text")
    if not content.strip():
        raise DatasetRefused(f"{place}: a turn of {brief(role)!r} is empty")
    return {"role": role, "content": content}


def _response(given: object, place: str) -> str:
    if isinstance(given, list) and given:
        turn = _turn(cast("list[object]", given)[-1], place)
        if turn["role"] != "assistant":
            raise DatasetRefused(f"{place}: the last turn is not the assistant's")
        return turn["content"]
    if not isinstance(given, str) or not given.strip():
        raise DatasetRefused(f"{place}: neither text nor turns; give the response")
    return given


def _some(rows: list[RowT], path: Path) -> list[RowT]:
    if not rows:
        raise DatasetRefused(f"{path} has no rows; give one JSON object a line, or Parquet")
    return rows
