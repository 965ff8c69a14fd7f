"""Every drawn instruction is met, or missed, as asked; by varied responses and every kind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.instructions import KINDS, draw
from steerward.protocol.errors import InvalidRequest
from tests.instructions.cases import PROSE, RESPONSES

UNDRAWN = {"combination:repeat_prompt"}
DRAWN = sorted(set(KINDS) - UNDRAWN)
PIECES = st.sampled_from(
    [
        *("The river ", "is wide, ", "and we wait. ", "\n", "\n\n", "* a\n", "- b\n", "1. c\n"),
        *("*bold* ", "<<T>>", "[name]", "***", "******", "Section 1 ", '"', "NO! ", "why? ", "é"),
        *(
            "P.S. so ",
            "{}",
            "42 ",
            "Mr. Lee ",
            "les amis et le ",
            "これは。",
            "\t",
            "My answer is no.",
        ),
    ]
)
WRITTEN = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=60)


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=40, deadline=None)
@given(response=WRITTEN | st.sampled_from(RESPONSES), met=st.booleans(), seed=st.integers(0, 999))
def test_drawn_instruction_is_met_as_asked(kind: str, response: str, met: bool, seed: int) -> None:
    drawn = draw(kind, response, met=met, order=random.Random(seed))
    if drawn is not None:
        assert drawn.kind == kind
        assert drawn.is_met(response) == met
        assert drawn.text.strip() == drawn.text != ""


@pytest.mark.parametrize("met", [True, False], ids=["met", "missed"])
@pytest.mark.parametrize("kind", DRAWN)
def test_every_kind_has_something_to_say_of_some_response(kind: str, met: bool) -> None:
    assert any(draw(kind, text, met=met, order=random.Random(1)) for text in RESPONSES)


@pytest.mark.parametrize("kind", DRAWN)
def test_seed_decides_arguments_and_phrasing(kind: str) -> None:
    def texts(seed: int) -> list[str | None]:
        order = random.Random(seed)
        drawn = [draw(kind, PROSE, met=met, order=order) for met in (True, False) * 8]
        return [None if one is None else one.text for one in drawn]

    assert texts(3) == texts(3)
    # Of arguments or of phrasings, there is always more than one.
    assert len(set(texts(3)) - {None}) > 1


def test_arguments_lie_near_what_the_response_measures() -> None:
    order = random.Random(0)
    response = "word " * 100
    for met in (True, False) * 20:
        drawn = draw("length_constraints:number_words", response, met=met, order=order)
        assert drawn is not None
        assert 60 <= drawn.arguments["num_words"] <= 141


def test_blank_response_and_unknown_prompt_have_nothing_to_be_drawn_for() -> None:
    order = random.Random(0)
    assert draw("punctuation:no_comma", " \n", met=False, order=order) is None
    for met in (True, False):
        assert draw("combination:repeat_prompt", PROSE, met=met, order=order) is None


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="known: "):
        draw("keywords:rhyme", PROSE, met=True, order=random.Random(0))
