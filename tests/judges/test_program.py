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
        ("1. So:\n\n   ```python\n   if a:\n       b\n   ```", "if a:\n    b\n"),
        ("- So:\n      ```\n      if a:\n          b\n\n    c\n      ```", "if a:\n    b\n\nc\n"),
        ("\t```py\n\tif a:\n\t\tb\n        c\n\t```", "if a:\n\tb\n    c\n"),
        ("- ```py\n  a\n  ```", "a\n"),
        ("```py\n'''\n    ```\n'''\n```", "'''\n    ```\n'''\n"),
        ('def f():\n    """\n    ```\n    """', 'def f():\n    """\n    ```\n    """'),
        ("~~~py\na = '```'\n~~~", "a = '```'\n"),
    ],
    ids=[
        "last",
        "no fence",
        "other language",
        "not closed",
        "inside",
        "in a list",
        "deep",
        "tabs",
        "item",
        "in a string",
        "no fence, in a string",
        "tildes",
    ],
)
def test_the_last_block_that_may_be_python_is_the_program(
    completion: str, program: str | None
) -> None:
    assert program_of(completion) == program


def test_the_first_block_can_be_the_program() -> None:
    assert program_of(TWO, which="first") == "a = 1\n"


def test_a_long_line_behind_a_fence_takes_no_time() -> None:
    """Once, a line of 100,000 spaces took 39 seconds; ten times as many end within the test's."""
    assert fenced_blocks("```" + " " * 1_000_000 + "`") == []
    assert fenced_blocks(" " * 1_000_000 + "x") == []
