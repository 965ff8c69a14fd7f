"""A judge of verifiable instructions (CGPO, section 4.8): every one of the row must hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionFollowing(SampleJudge):
    """Passes a completion that meets every instruction of its row.

    A row has its instructions in IFEval's two columns, or in one column of our own, which then
    goes first: a list of `Instruction`, or of mappings with `kind` and `arguments`. Lists and
    arguments may be JSON text.

    Args:
        column: Holds a row's instructions.
        ids_column: Holds the ids of IFEval's rows.
        arguments_column: Holds their arguments.
        is_loose: Whether an instruction is met if one of the completion's eight loose variants
            meets it (IFEval, arXiv:2311.07911, section 2.2).
        name: Of the judge.
    """

    column: str = "instructions"
    ids_column: str = "instruction_id_list"
    arguments_column: str = "kwargs"
    is_loose: bool = False
    name: str = "instruction_following"

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; None where the row has no instruction.

        Raises:
            InvalidRequest: If the row's instructions are none, or of no known kind.
        """
        found = self._instructions(sample)
        if not found:
            return None
        answer = sample.completion
        is_met = [
            one.is_met_loosely(answer) if self.is_loose else one.is_met(answer) for one in found
        ]
        return 1 if all(is_met) else 0

    def _instructions(self, sample: Sample) -> list[Any]:
        from steerward.instructions import Instruction, read_instructions

        own = _listed(sample.get(self.column), column=self.column)
        if own:
            given = [one for one in own if not isinstance(one, Instruction)]
            kinds, arguments = _kinds_and_arguments(given, column=self.column)
            read = iter(read_instructions(kinds, arguments))
            return [one if isinstance(one, Instruction) else next(read) for one in own]
        ids = _listed(sample.get(self.ids_column), column=self.ids_column)
        if not ids:
            return []
        given = _listed(sample.get(self.arguments_column), column=self.arguments_column)
        arguments = [_mapping(one, column=self.arguments_column) for one in given]
        return read_instructions(ids, arguments)


def _kinds_and_arguments(
    given: Sequence[Any], *, column: str
) -> tuple[list[str], list[Mapping[str, Any]]]:
    mappings = [_mapping(one, column=column) for one in given]
    for one in mappings:
        if "kind" not in one:
            raise InvalidRequest(f"an instruction in column {column} has no kind; give it one")
    return (
        [one["kind"] for one in mappings],
        [_mapping(one.get("arguments"), column=column) for one in mappings],
    )


def _listed(given: Any, *, column: str) -> list[Any]:
    value = _read(given, column=column)
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise InvalidRequest(f"column {column} of a row holds no list of instructions; give one")
    return list(cast("Sequence[Any]", value))


def _mapping(given: Any, *, column: str) -> Mapping[str, Any]:
    value = _read(given, column=column)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"column {column} of a row holds arguments that are no mapping")
    return cast("Mapping[str, Any]", value)


def _read(given: Any, *, column: str) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"column {column} of a row holds text that is no JSON") from None
