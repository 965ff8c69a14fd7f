"""Rows that MAPL learns from, beside the original pairs; each can be checked again at any time.

An *intra* row is one response behind two prompts, of which it follows the first better. An *inter*
row is an original pair behind a prompt with instructions that one end meets and the other violates.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steerward.instructions import Instruction
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.protocol.items import Message
from steerward.protocol.validation import invalid_request
from steerward.training.data.rows import read_objects

Turns = tuple[Mapping[str, str], ...]
"""A prompt: the turns before the response, the last one the user's."""
RowT = TypeVar("RowT", "IntraRow", "InterRow")


@dataclass(frozen=True, slots=True)
class IntraRow:
    """One response, behind a prompt that it follows and one that it follows less."""

    prompt_chosen: Turns
    prompt_rejected: Turns
    response: str
    instructions_chosen: tuple[Instruction, ...]
    """What `prompt_chosen` asks for beyond the original prompt."""
    instructions_rejected: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class InterRow:
    """An original pair behind its prompt, and behind that prompt with instructions."""

    prompt: Turns
    prompt_with: Turns
    chosen: str
    """The response that was preferred behind `prompt`."""
    rejected: str
    direction: Literal[1, -1]
    """1: the instructions are met by `chosen` and violated by `rejected`; -1: the other way."""
    instructions: tuple[Instruction, ...]

    @property
    def ends(self) -> tuple[str, str]:
        """The response that meets the instructions, then the one that violates them."""
        if self.direction == 1:
            return self.chosen, self.rejected
        return self.rejected, self.chosen


def with_instructions(prompt: Turns, instructions: Sequence[Instruction]) -> Turns:
    """Return a prompt whose last turn also asks for what instructions say."""
    *before, last = prompt
    content = "\n\n".join([last["content"], " ".join(one.text for one in instructions)])
    return (*before, {**last, "content": content})


def is_followed_better(
    response: str, first: Sequence[Instruction], second: Sequence[Instruction]
) -> bool:
    """Return whether a response follows one set of instructions better than another.

    It does if it meets all of the first and not all of the second, or at least one of the first
    and none of the second (MAPL, arXiv:2505.12845; intra-sample construction).
    """
    met, others = ([one.is_met(response) for one in side] for side in (first, second))
    return (all(met) and not all(others)) or (any(met) and not any(others))


def is_true(row: IntraRow | InterRow) -> bool:
    """Return whether the checkers confirm what a row says."""
    if isinstance(row, IntraRow):
        return is_followed_better(row.response, row.instructions_chosen, row.instructions_rejected)
    meets, violates = row.ends
    return all(one.is_met(meets) and not one.is_met(violates) for one in row.instructions)


def write_rows(path: Path, rows: Iterable[IntraRow] | Iterable[InterRow]) -> None:
    """Write rows as JSON lines, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_written(row), ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def rows_digest(rows: Iterable[IntraRow | InterRow]) -> str:
    """Return what rows must have in common to be the same."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(_written(row), sort_keys=True).encode())
    return digest.hexdigest()


def read_intra_rows(path: Path) -> list[IntraRow]:
    """Return the intra rows of a file; each is checked again.

    Raises:
        DatasetRefused: If a row breaks the schema, or the checkers say otherwise than it does.
    """
    return [
        _checked(
            IntraRow(
                _turns(row.prompt_chosen),
                _turns(row.prompt_rejected),
                row.response,
                _instructions(row.instructions_chosen, place),
                _instructions(row.instructions_rejected, place),
            ),
            place,
        )
        for place, row in _read(path, _Intra)
    ]


def read_inter_rows(path: Path) -> list[InterRow]:
    """Return the inter rows of a file; each that names its instructions is checked again.

    Raises:
        DatasetRefused: If a row breaks the schema, or the checkers say otherwise than it does.
    """
    return [
        _checked(
            InterRow(
                _turns(row.prompt),
                _turns(row.prompt_with),
                row.chosen,
                row.rejected,
                row.direction,
                _instructions(row.instructions, place),
            ),
            place,
        )
        for place, row in _read(path, _Inter)
    ]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Said(_Schema):
    kind: str
    arguments: dict[str, Any] = {}
    phrasing: int = 0


class _Intra(_Schema):
    prompt_chosen: str | list[Message] = Field(min_length=1)
    prompt_rejected: str | list[Message] = Field(min_length=1)
    response: str
    instructions_chosen: list[_Said] = Field(min_length=1)
    instructions_rejected: list[_Said] = Field(min_length=1)


class _Inter(_Schema):
    prompt: str | list[Message] = Field(min_length=1)
    prompt_with: str | list[Message] = Field(min_length=1)
    chosen: str
    rejected: str
    direction: Literal[1, -1]
    instructions: list[_Said] = []


_SchemaT = TypeVar("_SchemaT", bound=_Schema)


def _read(path: Path, schema: type[_SchemaT]) -> Iterator[tuple[str, _SchemaT]]:
    for number, fields in read_objects(path):
        place = f"{path.name}, row {number}"
        try:
            yield place, schema.model_validate(fields)
        except ValidationError as error:
            reason = invalid_request(error.errors()).message
            raise DatasetRefused(f"{place}: {reason}") from error


def _turns(given: str | list[Message]) -> Turns:
    if isinstance(given, str):
        return ({"role": "user", "content": given},)
    return tuple({"role": turn.role, "content": turn.content} for turn in given)


def _instructions(given: Sequence[_Said], place: str) -> tuple[Instruction, ...]:
    try:
        return tuple(Instruction(one.kind, one.arguments, one.phrasing) for one in given)
    except InvalidRequest as error:
        raise DatasetRefused(f"{place}: {error.message}") from error


def _checked(row: RowT, place: str) -> RowT:
    if not is_true(row):
        raise DatasetRefused(
            f"{place}: the checkers say otherwise than the row, about instructions of kinds "
            f"{', '.join(sorted(one.kind for one in _all_instructions(row)))}; build it again"
        )
    return row


def _all_instructions(row: IntraRow | InterRow) -> list[Instruction]:
    if isinstance(row, IntraRow):
        return [*row.instructions_chosen, *row.instructions_rejected]
    return list(row.instructions)


def _written(row: IntraRow | InterRow) -> dict[str, Any]:
    if isinstance(row, IntraRow):
        return {
            "prompt_chosen": list(row.prompt_chosen),
            "prompt_rejected": list(row.prompt_rejected),
            "response": row.response,
            "instructions_chosen": _said(row.instructions_chosen),
            "instructions_rejected": _said(row.instructions_rejected),
        }
    return {
        "prompt": list(row.prompt),
        "prompt_with": list(row.prompt_with),
        "chosen": row.chosen,
        "rejected": row.rejected,
        "direction": row.direction,
        "instructions": _said(row.instructions),
    }


def _said(instructions: Sequence[Instruction]) -> list[dict[str, Any]]:
    return [
        {"kind": one.kind, "arguments": dict(one.arguments), "phrasing": one.phrasing}
        for one in instructions
    ]
