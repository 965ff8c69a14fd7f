"""Length, as the published kinds take it."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

WORDS = "length_constraints:number_words"
SENTENCES = "length_constraints:number_sentences"
PARAGRAPHS = "length_constraints:number_paragraphs"
NTH = "length_constraints:nth_paragraph_first_word"

CASES: list[Case] = [
    (WORDS, {"num_words": 3, "relation": "at least"}, "One two, three.", True),
    (WORDS, {"num_words": 4, "relation": "at least"}, "One two, three.", False),
    (WORDS, {"num_words": 4, "relation": "less than"}, "One two, three.", True),
    (WORDS, {"num_words": 3, "relation": "less than"}, "One two, three.", False),
    # By \w+ a hyphen and an apostrophe part words.
    (WORDS, {"num_words": 4, "relation": "at least"}, "well-known don't", True),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, "It rains. we wait.", True),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, "It rains on Mr. Lee.", False),
    (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "It rains", True),
    (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "Why? Because!", False),
    (PARAGRAPHS, {"num_paragraphs": 2}, "One\n***\nTwo", True),
    (PARAGRAPHS, {"num_paragraphs": 2}, "***\nOne\n***\nTwo\n***", True),
    (PARAGRAPHS, {"num_paragraphs": 2}, "One\n\nTwo", False),
    # A blank one in the middle is never right: six asterisks are two dividers.
    (PARAGRAPHS, {"num_paragraphs": 2}, "One\n******\nTwo", False),
    (
        NTH,
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "A.\n\nthen, b.",
        True,
    ),
    (
        NTH,
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "A.\n\n'then' b.",
        True,
    ),
    (
        NTH,
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "then"},
        "A.\n\nthen b.",
        False,
    ),
    (NTH, {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "a"}, "A.\n\nthen b.", False),
    # The published checker finds the n-th with blank parts counted in.
    (NTH, {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "b"}, "A\n\n\n\nB", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_length_is_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
