"""The kinds that settings may name are those that there are checkers of."""

from __future__ import annotations

from steerward.instructions import KINDS
from steerward.protocol.instructions import INSTRUCTION_KINDS


def test_the_kinds_of_the_contract_are_those_of_the_registry() -> None:
    assert list(INSTRUCTION_KINDS) == sorted(KINDS)
