from __future__ import annotations

import pytest

from steerward.judges.program import Block, fenced_blocks, program_of

TWO = "First:\n```python\na = 1\n```\nthen\n```\nb = 2\n```\nand\n```sh\nls\n```\n"


def test_blocks_are_found_in_order_with_their_tags() -> None:
    assert fenced_blocks(TWO) == [
        Block("python", "a = 1\n"),
        Block("", "b = 2\n"),
        Block("sh", "ls\n"),
    ]


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (TWO, "b = 2\n"),
        ("a = 1", "a = 1"),
        ("```sh\nls\n```", None),
        ("```Python3\na = 1", "a = 1\n"),
        ("````\n```\na\n```\n````", "```\na\n```\n"),
        ("~~~py\na = '```'\n~~~", "a = '```'\n"),
    ],
    ids=["last", "no fence", "other language", "not closed", "inside", "tildes"],
)
def test_the_last_block_that_may_be_python_is_the_program(
    completion: str, program: str | None
) -> None:
    assert program_of(completion) == program


def test_the_first_block_can_be_the_program() -> None:
    assert program_of(TWO, which="first") == "a = 1\n"
