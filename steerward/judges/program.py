"""The fenced blocks of a completion, and the program that one of them holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Possessive: what was taken is not tried again, so that long lines take no longer than they are.
_FENCE = re.compile(
    r"(?P<indent>[ \t]*+)(?P<item>(?:[-*+]|\d{1,9}[.)])[ \t]++)?+"
    r"(?P<marks>`{3,}+|~{3,}+)\s*+(?P<tag>[^\s`]*+)[^`]*+"
)
# In Markdown, from where on a line is code without a fence, unless it belongs to an item of a list.
_DEEP = 4
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences of Markdown."""

    tag: str
    """The word behind the first fence, in small letters."""
    text: str


def fenced_blocks(completion: str) -> list[Block]:
    """Return the fenced blocks in order; one that is not closed goes on to the end.

    A fence may stand at any depth, as in an item of a list; the lines behind it then lose as much
    white space as it has before it.
    """
    blocks: list[Block] = []
    lines: list[str] = []
    opened: re.Match[str] | None = None
    is_quoted = False
    for line in completion.splitlines():
        found = _FENCE.fullmatch(line)
        if opened is None:
            # A deep fence inside a string is part of a program that stands without fences.
            opened = None if is_quoted and found and _width(found) >= _DEEP else found
            is_quoted ^= (line.count('"""') + line.count("'''")) % 2 == 1
        elif found is not None and _closes(found, opened):
            blocks.append(_block(opened, lines))
            opened, lines = None, []
        else:
            lines.append(line)
    return blocks if opened is None else [*blocks, _block(opened, lines)]


def _closes(found: re.Match[str], opened: re.Match[str]) -> bool:
    """Return whether a fence ends a block; a deeper one belongs to what stands in it."""
    if found["tag"] or found["item"] or _width(found) >= _width(opened) + _DEEP:
        return False
    return found["marks"].startswith(opened["marks"])


def _block(opened: re.Match[str], lines: list[str]) -> Block:
    width = _width(opened)
    text = "\n".join(_without_indent(line, width) for line in lines)
    return Block(opened["tag"].lower(), f"{text}\n")


def _width(fence: re.Match[str]) -> int:
    """Return how many columns stand before a fence; a tab ends at the next multiple of four."""
    return len((fence["indent"] + (fence["item"] or "")).expandtabs(_DEEP))


def _without_indent(line: str, width: int) -> str:
    """Return a line without the white space of its first columns."""
    column = 0
    for place, character in enumerate(line):
        if character not in " \t" or column >= width:
            return line[place:]
        column += 1 if character == " " else _DEEP - column % _DEEP
    return ""


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
