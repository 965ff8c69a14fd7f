"""One instruction: a kind with its arguments, how it reads and whether a response meets it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerward.instructions.loose import loose_variants
from steerward.instructions.registry import kind_named
from steerward.protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction that a response either meets or does not.

    Raises:
        InvalidRequest: If there is no such kind, or its arguments break its rules.
    """

    kind: str
    """Id of the kind, one of `KINDS`."""
    arguments: Mapping[str, Any]
    """By name; kept as the kind reads them, without those that are None."""
    phrasing: int = 0
    """Which of the kind's phrasings its text is; counted round, so any number will do."""

    def __post_init__(self) -> None:
        kind = kind_named(self.kind)
        read = kind.read(self.arguments)
        object.__setattr__(self, "arguments", read)
        object.__setattr__(self, "phrasing", self.phrasing % len(kind.phrasings(read)))

    def __hash__(self) -> int:
        return hash((self.kind, json.dumps(self.arguments, sort_keys=True), self.phrasing))

    @property
    def text(self) -> str:
        """The sentence that asks for it, to be put behind a prompt."""
        return kind_named(self.kind).phrasings(self.arguments)[self.phrasing]

    def is_met(self, response: str) -> bool:
        """Return whether a response meets it; a blank one meets nothing, as in IFEval."""
        return bool(response.strip()) and kind_named(self.kind).is_met(response, self.arguments)

    def is_met_loosely(self, response: str) -> bool:
        """Return whether one of the response's eight loose variants meets it."""
        return any(map(self.is_met, loose_variants(response)))


def read_instructions(
    ids: Sequence[str], arguments: Sequence[Mapping[str, Any] | None]
) -> list[Instruction]:
    """Return the instructions of a published row.

    Args:
        ids: Its column ``instruction_id_list``.
        arguments: Its column ``kwargs``: for each id its arguments, where None stands for none.

    Raises:
        InvalidRequest: If the two differ in length, or an instruction is wrong; its place in the
            list is named.
    """
    if len(ids) != len(arguments):
        raise InvalidRequest(
            f"{len(ids)} instructions and arguments of {len(arguments)}; give each its arguments, "
            "{} for none"
        )
    read: list[Instruction] = []
    for place, (kind, given) in enumerate(zip(ids, arguments, strict=True)):
        try:
            read.append(Instruction(kind, given or {}))
        except InvalidRequest as error:
            raise InvalidRequest(f"instruction {place}: {error}") from error
    return read
