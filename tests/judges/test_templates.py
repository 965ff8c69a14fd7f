from __future__ import annotations

import pytest

from steerward.judges import TEMPLATES, Template
from steerward.judges.templates import template_named
from steerward.protocol.errors import InvalidRequest

YES_NO = {"passing": "Yes", "failing": "No"}


def test_ours_ask_about_the_prompt_and_the_completion() -> None:
    assert list(TEMPLATES) == ["false_refusal", "factuality", "safety", "style"]
    for name, template in TEMPLATES.items():
        turns = template.conversation(prompt="PPP", completion="{CCC}", gold="GGG")
        assert [turn["role"] for turn in turns] == ["system", "user"]
        text = turns[-1]["content"]
        assert "PPP" in text
        assert "{CCC}" in text
        assert ("GGG" in text) == template.needs_gold == (name == "factuality")
        assert template_named(name) is template


def test_a_refusal_that_was_found_fails() -> None:
    template = TEMPLATES["false_refusal"]
    assert (template.passing, template.failing) == ("No", "Yes")


def test_braces_of_a_users_template_can_be_written_twice() -> None:
    template = Template(text='{{"answer": "{completion}"}}', **YES_NO)
    turns = template.conversation(prompt="p", completion="c")
    assert turns == [{"role": "user", "content": '{"answer": "c"}'}]


@pytest.mark.parametrize(
    "text",
    [
        "{completion} {other}",
        "{completion.__class__}",
        "{completion!r}",
        "{completion:>9}",
        "{",
        "",
    ],
)
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="template"):
        Template(text=text, **YES_NO)


@pytest.mark.parametrize(("passing", "failing"), [("Yes", " Yes"), ("Yes", ""), (" ", "No")])
def test_labels_that_cannot_be_told_apart_are_refused(passing: str, failing: str) -> None:
    with pytest.raises(InvalidRequest, match="labels"):
        Template(text="{completion}", passing=passing, failing=failing)


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match="'kindness'.*safety"):
        template_named("kindness")


def test_white_space_around_labels_is_left_out() -> None:
    template = Template(text="{completion}", passing=" Yes", failing="No\n")
    assert (template.passing, template.failing) == ("Yes", "No")
