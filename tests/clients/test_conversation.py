"""What trainers hold as messages, as the wire takes it."""

from __future__ import annotations

import pytest

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.protocol.errors import InvalidRequest


def test_parts_of_text_are_put_together() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": ", you."}]
    assert plain_prompt(({"role": "user", "content": parts},)) == [
        {"role": "user", "content": "Hello, you."}
    ]
    assert plain_answer([{"role": "assistant", "content": parts}]) == "Hello, you."


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (7, "of type int"),
        ({"role": "user", "content": "Hi"}, "of type dict"),
        ([], "no messages"),
        (["Hi"], r"prompt\[0\] is no message"),
        ([{"role": "user", "content": [{"type": "image"}]}], "not text alone"),
        ([{"role": "user", "content": None}], "not text alone"),
    ],
)
def test_prompt_of_another_shape_is_refused(prompt: object, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        plain_prompt(prompt)
