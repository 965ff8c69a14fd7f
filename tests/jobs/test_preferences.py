"""Preferences of either form are read alike, and wrong ones refused without their words."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.jobs.preferences import is_preference, pair_of
from steerward.protocol.errors import InvalidRequest

SECRET = "words that nobody else may read"
USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
OTHER = {"role": "assistant", "content": "No."}
PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
OPENAI = {
    "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [ANSWER],
    "non_preferred_output": [OTHER],
}


def test_both_forms_are_read_alike() -> None:
    ours = {"messages": [USER], "chosen": [ANSWER], "rejected": "No."}
    (prompt, pair), (openai_prompt, openai_pair) = pair_of(ours), pair_of(OPENAI)
    assert prompt["messages"] == openai_prompt["messages"]
    assert pair == openai_pair
    assert (pair.chosen, pair.rejected, pair.margins) == ("Because.", "No.", {})


def test_margins_are_a_number_or_one_for_each_objective() -> None:
    _, pair = pair_of({**PAIR, "margin_chosen": [1, 0.5], "margin_rejected": [0, 0]})
    assert pair.margins == {"margin_chosen": [1.0, 0.5], "margin_rejected": [0.0, 0.0]}
    _, pair = pair_of({**PAIR, "margin_chosen": 2, "margin_rejected": 1})
    assert pair.margins == {"margin_chosen": 2.0, "margin_rejected": 1.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": None}, "rejected: not a list of turns"),
        ({"rejected": " "}, "rejected: empty"),
        ({"rejected": "Because."}, "chosen and rejected are equal"),
        ({"chosen": [USER, ANSWER]}, "chosen: neither text nor a list of one assistant turn"),
        ({"chosen": [USER]}, "chosen: neither text nor a list of one assistant turn"),
        ({"messages": [USER, ANSWER]}, "messages: end with an assistant turn"),
        ({"margin_chosen": 1.0}, "margin_chosen: alone"),
        ({"margin_chosen": 1.0, "margin_rejected": [1.0]}, "not of the same objectives"),
        ({"margin_chosen": True, "margin_rejected": 1.0}, "margin_chosen: neither a finite number"),
        ({"margin_chosen": [], "margin_rejected": []}, "margin_chosen: neither"),
        ({"margin_chosen": float("inf"), "margin_rejected": 0.0}, "margin_chosen: neither"),
        ({"margin_chosen": 10**400, "margin_rejected": 0.0}, "margin_chosen: neither"),
        ({"margin_chosen": 0.0, "margin_rejected": [-(10**400)]}, "margin_rejected: neither"),
        ({"preferred_output": [ANSWER]}, "input: not an object with messages"),
        (OPENAI, "chosen, prompt, rejected: beside input"),
    ],
)
def test_a_wrong_preference_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        pair_of({**PAIR, **change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": {"messages": [USER], "tools": [SECRET]}}, "input.tools: policies here call"),
        ({"input": {"messages": [USER], "model": SECRET}}, "input.model: unknown key"),
        ({"input": {"messages": [USER, ANSWER]}}, "messages: end with an assistant turn"),
        ({"preferred_output": [ANSWER, ANSWER]}, "preferred_output: neither text nor"),
    ],
)
def test_a_wrong_preference_of_the_other_form_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        pair_of({**OPENAI, **change})
    assert SECRET not in caught.value.message


def test_half_a_preference_is_one_that_is_wrong() -> None:
    assert is_preference({"prompt": "Why?", "chosen": "Because."})
    with pytest.raises(InvalidRequest, match="rejected: missing"):
        pair_of({"prompt": "Why?", "chosen": "Because."})
    assert not is_preference({"prompt": "Why?"})
