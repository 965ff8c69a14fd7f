"""Length beyond the published kinds."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

BETWEEN = "steerward:words_between"
ABOUT = "steerward:words_about"
EXACTLY = "steerward:sentences_exactly"
BLOCKS = "steerward:blank_line_paragraphs"
TWENTY = "word " * 20

CASES: list[Case] = [
    (BETWEEN, {"least": 2, "most": 3}, "One two three", True),
    (BETWEEN, {"least": 3, "most": 3}, "One two three", True),
    (BETWEEN, {"least": 4, "most": 9}, "One two three", False),
    (BETWEEN, {"least": 1, "most": 2}, "One two three", False),
    (ABOUT, {"num_words": 22}, TWENTY, True),
    (ABOUT, {"num_words": 23}, TWENTY, False),
    (ABOUT, {"num_words": 18}, TWENTY, False),
    (EXACTLY, {"num_sentences": 2}, "One. Two.", True),
    (EXACTLY, {"num_sentences": 1}, "One. Two.", False),
    (BLOCKS, {"num_paragraphs": 2, "relation": "at least"}, "One\n \n\nTwo\nthree", True),
    (BLOCKS, {"num_paragraphs": 2, "relation": "less than"}, "One\n\nTwo", False),
    ("steerward:sentence_length", {"most_words": 2}, "One two. Three.", True),
    ("steerward:sentence_length", {"most_words": 1}, "One two. Three.", False),
    ("steerward:word_length", {"most_letters": 5}, "three two", True),
    ("steerward:word_length", {"most_letters": 4}, "three two", False),
    ("steerward:single_line", {}, "One. Two.\n", True),
    ("steerward:single_line", {}, "One.\nTwo.", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_size_is_checked(case: Case) -> None:
    assert is_met(case) == case[-1]
