"""Counting rules that stand in for nltk's."""

from __future__ import annotations

import time

import pytest

from steerward.instructions import KINDS, Instruction
from steerward.instructions.measure import sentences, tokens

SENTENCES = {
    "One. two! three? four": 4,
    'He said "No." Then he left.': 2,
    "Dr. Who met J. R. Ewing, e.g. in the U.S. Army.": 1,
    "We met at 5 p.m. on Monday.": 1,
    "We met at 5 p.m. Then we ate.": 2,
    "See No. 5 of the list.": 1,
    "Pi is 3.14 here. And there.": 2,
    "1. One thing.\n2. Another.": 2,
    "Wait... for me. Wait... Then go.": 3,
    "A title\n\nA sentence of it.": 1,
    "これは文です。これも文です！": 2,
    "So did I. You too.": 2,
    "I like it! 😀": 2,  # what follows the last stop is one, whatever it is
    "?! ... !": 3,
}


@pytest.mark.parametrize(("text", "count"), SENTENCES.items(), ids=list(SENTENCES))
def test_sentences_are_told_apart(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_tokens_follow_the_penn_treebank() -> None:
    text = "I'm U.S.-born, don't re-ask O'Neil; it's \"A-1\" (ok)."
    expected = ["I", "'m", "U.S.", "born", "do", "n't", "re-ask", "O'Neil", "it", "'s", "A-1", "ok"]
    assert tokens(text) == expected


SAMPLE = {
    "keywords:existence": {"keywords": ["a"]},
    "keywords:frequency": {"keyword": "aa", "frequency": 2, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["a"]},
    "keywords:letter_frequency": {"letter": "a", "let_frequency": 2, "let_relation": "at least"},
    "language:response_language": {"language": "en"},
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"},
    "steerward:sentence_length": {"most_words": 3},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "at least"},
    "detectable_format:number_bullet_lists": {"num_bullets": 2},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 2},
    "detectable_format:title": {},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "length_constraints:number_paragraphs": {"num_paragraphs": 2},
    "steerward:blank_line_paragraphs": {"num_paragraphs": 2, "relation": "at least"},
    "steerward:numbered_list": {"num_items": 2},
}


@pytest.mark.parametrize("piece", [".", "<", "[", "*", "\n", " \n", "a'", "A", "1", '!"', " ", "-"])
def test_no_response_takes_a_square_of_its_length(piece: str) -> None:
    """A policy that says one thing for ever must not hold up its own training."""
    response = "x" + piece * (50_000 // len(piece))
    started = time.process_time()
    for kind, arguments in SAMPLE.items():
        assert kind in KINDS
        Instruction(kind, arguments).is_met(response)
    assert time.process_time() - started < 5
