"""How a response starts and ends, and its punctuation."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

CASES: list[Case] = [
    ("startend:end_checker", {"end_phrase": "Any questions?"}, '"Yes. any Questions?"\n', True),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, "Any questions? Ask.", False),
    ("steerward:start_phrase", {"start_phrase": "I think"}, ' "i think so."', True),
    ("steerward:start_phrase", {"start_phrase": "I think"}, "So I think.", False),
    ("startend:quotation", {}, ' "Yes," he "said."\n', True),
    ("startend:quotation", {}, '"Yes," he said.', False),
    ("startend:quotation", {}, '"', False),
    ("punctuation:no_comma", {}, "Yes; 1.000 times", True),
    ("punctuation:no_comma", {}, "Yes, 1,000 times", False),
    ("steerward:no_digits", {}, "Two of them", True),
    ("steerward:no_digits", {}, "2 of them", False),
    ("steerward:question_end", {}, 'Is it "so?"', True),
    ("steerward:question_end", {}, "Is it? Yes.", False),
    ("steerward:exclamation_marks", {"most": 1}, "No!", True),
    ("steerward:exclamation_marks", {"most": 1}, "No!!", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_edges_are_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
