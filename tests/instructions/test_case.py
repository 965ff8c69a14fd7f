"""Letter case and language, as the published kinds take them, by own rules for the language."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

CAPITAL = "change_case:english_capital"
LOWER = "change_case:english_lowercase"
FREQUENCY = "change_case:capital_word_frequency"
LANGUAGE = "language:response_language"


def capitals(count: int, relation: str) -> dict[str, object]:
    return {"capital_frequency": count, "capital_relation": relation}


CASES: list[Case] = [
    (CAPITAL, {}, "THIS IS THE 1ST OF MAY.", True),
    (CAPITAL, {}, "This is the first of May.", False),
    (CAPITAL, {}, "DER ERSTE TAG WAR NICHT GUT UND DAS ANDERE AUCH.", False),
    (CAPITAL, {}, "42", False),
    (LOWER, {}, "this is the 1st of may.", True),
    (LOWER, {}, "hello world", True),  # too short to be told: may be English
    (LOWER, {}, "this is the first of May.", False),
    (LOWER, {}, "это не то, что вы думаете, и не так", False),
    (FREQUENCY, capitals(2, "at least"), "The UNITED-NATIONS and the EU", True),
    (FREQUENCY, capitals(3, "at least"), "The UNITED-NATIONS and the EU", False),
    # As the Penn Treebank splits: DO and N'T; I and 'M.
    (FREQUENCY, capitals(4, "at least"), "DON'T say I'M", True),
    (FREQUENCY, capitals(2, "less than"), "I ask the U.S. for 42.", False),
    (FREQUENCY, capitals(3, "less than"), "I ask the U.S. for 42.", True),
    (LANGUAGE, {"language": "fr"}, "Il est dans la maison et ne veut pas parler.", True),
    (LANGUAGE, {"language": "en"}, "Il est dans la maison et ne veut pas parler.", False),
    (LANGUAGE, {"language": "kn"}, "ನಾನು ಮನೆಗೆ ಹೋಗುತ್ತೇನೆ.", True),
    (LANGUAGE, {"language": "en"}, "1 + 1 = 2", True),  # no letters: in any language
    (LANGUAGE, {"language": "en"}, "Հայերեն", False),  # letters of a script that we do not know
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_case_and_language_are_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
