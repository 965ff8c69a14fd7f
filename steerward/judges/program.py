"""The fenced blocks of a completion, and the program that one of them holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}|~{3,})\s*(?P<tag>[^\s`]*)[^`]*")
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences of Markdown."""

    tag: str
    """The word behind the first fence, in small letters."""
    text: str


def fenced_blocks(completion: str) -> list[Block]:
    """Return the fenced blocks in order; one that is not closed goes on to the end."""
    blocks: list[Block] = []
    lines: list[str] = []
    opened: re.Match[str] | None = None
    for line in completion.splitlines():
        found = _FENCE.fullmatch(line)
        if opened is None:
            opened = found
        elif found is not None and not found["tag"] and found["marks"].startswith(opened["marks"]):
            blocks.append(_block(opened, lines))
            opened, lines = None, []
        else:
            lines.append(line)
    return blocks if opened is None else [*blocks, _block(opened, lines)]


def _block(opened: re.Match[str], lines: list[str]) -> Block:
    return Block(opened["tag"].lower(), "\n".join(lines) + "\n")


def program_of(completion: str, *, which: Literal["first", "last"] = "last") -> str | None:
    """Return the Python program of a completion; None if it holds none.

    Args:
        completion: Text with fenced blocks, or without any: then all of it is the program.
        which: Of several blocks in Python, or without a tag.
    """
    blocks = fenced_blocks(completion)
    if not blocks:
        return completion
    programs = [block.text for block in blocks if block.tag in _PYTHON]
    if not programs:
        return None
    return programs[0 if which == "first" else -1]
