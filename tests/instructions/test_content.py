"""Parts that a response holds, as the published kinds take them."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

PLACEHOLDERS = "detectable_content:number_placeholders"
POSTSCRIPT = "detectable_content:postscript"
TWO = "combination:two_responses"
REPEAT = "combination:repeat_prompt"

CASES: list[Case] = [
    (PLACEHOLDERS, {"num_placeholders": 3}, "[a] [b[c] []", True),
    (PLACEHOLDERS, {"num_placeholders": 2}, "[a] and [b\nc]", False),
    (POSTSCRIPT, {"postscript_marker": "P.S."}, "Bye. p. s. Call me.", True),
    (POSTSCRIPT, {"postscript_marker": "P.S."}, "Bye. PS: Call me.", False),
    (POSTSCRIPT, {"postscript_marker": "P.P.S"}, "P.P.S. Call me.", True),
    (POSTSCRIPT, {"postscript_marker": "P.P.S"}, "P.S. Call me.", False),
    (POSTSCRIPT, {"postscript_marker": "NB:"}, "Bye.\nnb: call me.", True),
    (TWO, {}, "One\n******\nTwo", True),
    (TWO, {}, "******One******Two******", True),
    (TWO, {}, "One\n******\nOne", False),
    (TWO, {}, "One\n************\nTwo", False),
    (TWO, {}, "One\n***\nTwo", False),
    (REPEAT, {"prompt_to_repeat": "Name a prime."}, " name a Prime. 7", True),
    (REPEAT, {"prompt_to_repeat": "Name a prime."}, "You said: Name a prime. 7", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_content_is_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
