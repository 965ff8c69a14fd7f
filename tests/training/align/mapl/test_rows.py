"""Rows in files: what is written is read again, and what is not true is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.instructions import Instruction
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.mapl.rows import (
    InterRow,
    IntraRow,
    is_followed_better,
    read_inter_rows,
    read_intra_rows,
    with_instructions,
    write_rows,
)

_TURNS = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"})
_NO_COMMA = Instruction("punctuation:no_comma", {})
_NO_DIGITS = Instruction("steerward:no_digits", {}, 1)
_WITH = with_instructions(_TURNS, [_NO_COMMA, _NO_DIGITS])
_INTRA = IntraRow(_WITH, _TURNS, "Me, 5 times.", (_NO_COMMA,), (_NO_DIGITS,))
_TRUE = IntraRow(_WITH, _TURNS, "I, one.", (_NO_DIGITS,), (_NO_COMMA,))
_INTER = InterRow(_TURNS, _WITH, "Me, 5 times.", "Me.", -1, (_NO_COMMA, _NO_DIGITS))


def test_instructions_stand_behind_the_last_turn() -> None:
    assert _WITH[0] == _TURNS[0]
    assert _WITH[1]["content"] == f"Who?\n\n{_NO_COMMA.text} {_NO_DIGITS.text}"


def test_intra_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "intra.jsonl"
    write_rows(path, [_TRUE, _TRUE])
    assert read_intra_rows(path) == [_TRUE, _TRUE]
    assert set(json.loads(path.read_text().splitlines()[0])) == {
        *("prompt_chosen", "prompt_rejected", "response"),
        *("instructions_chosen", "instructions_rejected"),
    }


def test_inter_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "inter.jsonl", [_INTER])
    assert read_inter_rows(tmp_path / "inter.jsonl") == [_INTER]


def test_prompt_as_text_is_one_turn(tmp_path: Path) -> None:
    path = tmp_path / "inter.jsonl"
    row = {"prompt": "a", "prompt_with": "b", "chosen": "c", "rejected": "d", "direction": 1}
    path.write_text(json.dumps(row))
    assert read_inter_rows(path)[0].prompt == ({"role": "user", "content": "a"},)


def test_row_that_the_checkers_do_not_confirm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "intra.jsonl"
    write_rows(path, [_TRUE, _INTRA])
    with pytest.raises(DatasetRefused, match=r"intra.jsonl, row 1: the checkers say otherwise"):
        read_intra_rows(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"direction": 2}, "direction"),
        ({"more": 1}, "more"),
        ({"instructions": [{"kind": "wrong:kind"}]}, "wrong:kind"),
    ],
)
def test_row_of_another_shape_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "inter.jsonl"
    row = {"prompt": "a", "prompt_with": "b", "chosen": "c", "rejected": "d", "direction": 1}
    path.write_text(json.dumps(row | change))
    with pytest.raises(DatasetRefused, match=rf"inter.jsonl, row 0: .*{reason}"):
        read_inter_rows(path)


def test_all_against_some_and_some_against_none_are_better() -> None:
    met, violated = _NO_DIGITS, _NO_COMMA
    assert is_followed_better("I, one.", [met], [met, violated])
    assert is_followed_better("I, one.", [met, violated], [violated])
    assert not is_followed_better("I, one.", [met, violated], [met, violated])
    assert not is_followed_better("I, one.", [met], [met])
