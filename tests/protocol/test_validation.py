"""Any number of findings becomes one short error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from steerward.protocol.validation import invalid_request


class Findings(Sequence[Any]):
    """Findings of pydantic that count how many of them were looked at."""

    def __init__(self, findings: Sequence[Any]) -> None:
        self._findings = findings
        self.num_read = 0

    def __len__(self) -> int:
        return len(self._findings)

    def __iter__(self) -> Iterator[Any]:
        for finding in self._findings:
            self.num_read += 1
            yield finding

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("read in order, once")


def finding(*loc: int | str, kind: str = "string_type") -> dict[str, Any]:
    return {"type": kind, "loc": loc, "msg": "Input should be a valid string"}


def test_five_places_are_named_and_the_rest_is_only_counted() -> None:
    findings = Findings([finding("body", "items", i) for i in range(20_000)])
    error = invalid_request(findings)
    assert error.param == "items[0]"
    assert error.message.count("valid string") == 5
    assert error.message.endswith("(and 19995 more)")
    assert findings.num_read <= 6


def test_what_is_said_twice_is_shown_once() -> None:
    error = invalid_request([finding("items", 0)] * 2 + [finding("items", 1)])
    assert error.message.count("items[0]") == 1
    assert "more" not in error.message


def test_long_keys_are_cut_in_message_and_place() -> None:
    error = invalid_request([finding("x" * 1_000_000, "y" * 1_000_000, kind="extra_forbidden")])
    assert len(error.message) < 300
    assert len(error.param or "") < 200
    assert "unknown key" in error.message


def test_form_of_a_prompt_is_no_place_but_an_objective_of_that_name_is() -> None:
    assert (
        invalid_request([finding("items", 0, "prompt", "turns", 1)]).param == "items[0].prompt[1]"
    )
    assert invalid_request([finding("direction", "turns")]).param == "direction.turns"
    assert invalid_request([finding("direction", "a", "[key]")]).param == "direction.a"
