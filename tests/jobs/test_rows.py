"""Rows are prompts or conversations; what is wrong is told with its line and without its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.jobs.row_parts import MAX_LINE_BYTES
from steerward.jobs.rows import (
    RowSummary,
    check_rows,
    num_margins,
    read_conversations,
    read_prompts,
    read_rows,
)
from steerward.protocol.errors import InputTooLong, InvalidRequest

USER = {"role": "user", "content": "Why?"}
ASSISTANT = {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be short."}
TOOL = {"role": "tool", "content": "42"}
SECRET = "words that nobody else may read"


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_prompts_are_read_as_conversations_that_end_with_the_user(path: Path) -> None:
    write(
        path,
        b'\xef\xbb\xbf{"prompt": "Wh\xc3\xa4t?"}\r',
        b"",
        b"  \t",
        {"messages": [SYSTEM, USER, ASSISTANT, USER], "id": 7, "metadata": {"a": [None]}},
        {"messages": [USER, ASSISTANT, TOOL]},
    )
    assert check_rows(path, max_rows=3) == RowSummary(3, "prompts")
    assert read_prompts(path) == [
        ({"role": "user", "content": "Whät?"},),
        (SYSTEM, USER, ASSISTANT, USER),
        (USER, ASSISTANT, TOOL),
    ]
    with pytest.raises(InvalidRequest, match="line 1: ends with a user or tool turn"):
        read_conversations(path)


def test_conversations_end_with_the_assistant(path: Path) -> None:
    write(path, {"messages": [USER, ASSISTANT]}, {"messages": [SYSTEM, USER, TOOL, ASSISTANT]})
    assert check_rows(path, max_rows=2) == RowSummary(2, "conversations")
    assert read_conversations(path) == [(USER, ASSISTANT), (SYSTEM, USER, TOOL, ASSISTANT)]
    with pytest.raises(InvalidRequest, match="line 1: ends with an assistant turn"):
        read_prompts(path)


def test_a_mixed_file_is_refused_with_the_first_row_that_differs(path: Path) -> None:
    write(path, b"", {"prompt": "a"}, {"prompt": "b"}, {"messages": [USER, ASSISTANT]})
    expected = "line 4: ends with an assistant turn, and line 2 with a user or tool turn"
    with pytest.raises(InvalidRequest, match=expected):
        check_rows(path, max_rows=9)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([SECRET], "not a JSON object"),
        ({}, "either prompt or messages"),
        ({"prompt": SECRET, "messages": [USER]}, "either prompt or messages"),
        (
            {"prompt": SECRET, "completion": SECRET},
            "completion: unknown key; the known are answer, ",
        ),
        ({"prompt": [SECRET]}, "prompt: not a string"),
        ({"prompt": None}, "prompt: not a string"),
        ({"prompt": " \n"}, "prompt: empty"),
        ({"prompt": SECRET + "\ud800"}, "prompt: not Unicode text: a lone surrogate at"),
        ({"messages": []}, "messages: not a list of turns with at least one"),
        ({"messages": {"role": SECRET}}, "messages: not a list"),
        ({"messages": [SECRET]}, r"messages\[0\]: not an object"),
        ({"messages": [USER, {"role": SECRET, "content": "x"}]}, r"messages\[1\].role: not one of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"messages\[0\].role: not one of"),
        ({"messages": [{"content": SECRET}]}, r"messages\[0\].role: not one of"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: not a string"),
        ({"messages": [{"role": "user", "content": ""}]}, r"messages\[0\].content: empty"),
        ({"messages": [{**USER, "name": SECRET}]}, r"messages\[0\].name: unknown key"),
        ({"messages": [USER, SYSTEM]}, "end with a system turn"),
        ({"messages": [SYSTEM, ASSISTANT]}, "no user turn"),
        ({"messages": [ASSISTANT]}, "no user turn"),
        ({"messages": [TOOL]}, "no user turn"),
        ({"messages": [USER, ASSISTANT, ASSISTANT]}, r"messages\[1\]: of role assistant, before"),
        (f'{{"prompt": "{SECRET}'.encode(), "not JSON at character 12"),
        (b'{"prompt": "' + SECRET.encode() + b'\xff"}', "not UTF-8 at byte 43"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"id": ' + b"9" * 5000 + b"}", "number too long"),
        ('{"prompt": "x"}'.encode("utf-16"), "not UTF-8"),
    ],
    ids=range(27),
)
def test_a_wrong_row_is_refused_with_its_line_and_none_of_its_words(
    path: Path, row: Any, reason: str
) -> None:
    write(path, {"prompt": "right"}, b"", row)
    for read in (lambda: check_rows(path, max_rows=9), lambda: read_prompts(path)):
        with pytest.raises(InvalidRequest, match=f"^line 3: .*{reason}") as caught:
            read()
        assert SECRET not in caught.value.message


def test_what_judges_read_stands_beside_the_prompt_or_in_columns(path: Path) -> None:
    write(
        path,
        {"prompt": "2 + 2?", "answer": "4", "task": "maths", "id": 1},
        {"prompt": "Hi", "instruction_id_list": ["a:b"], "kwargs": [{}], "key": 7},
        {"messages": [USER], "columns": {"max_words": 30}, "metadata": {"x": 1}},
    )
    assert check_rows(path, max_rows=3) == RowSummary(3, "prompts")
    assert [row.columns for row in read_rows(path, "prompts")] == [
        {"answer": "4", "task": "maths"},
        {"instruction_id_list": ["a:b"], "kwargs": [{}], "key": 7},
        {"max_words": 30},
    ]
    assert len(read_prompts(path)) == 3


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([1], "columns: not an object"),
        ({"completions": 1}, "columns.completions: not a name that a column can have"),
        ({"a b": 1}, "columns.a b: not a name"),
        ({"answer": "5"}, "columns.answer: also beside the prompt"),
        ({"words": SECRET + "\ud800"}, "words: holds no Unicode text"),
        ({"words": [float("nan")]}, "words: holds no Unicode text, or no finite number"),
    ],
    ids=["list", "taken", "no name", "twice", "surrogate", "nan"],
)
def test_a_column_that_nobody_could_be_given_is_refused(
    path: Path, columns: Any, reason: str
) -> None:
    write(path, {"prompt": SECRET, "answer": "4", "columns": columns})
    with pytest.raises(InvalidRequest, match=f"^line 1: {reason}") as caught:
        check_rows(path, max_rows=9)
    assert SECRET not in caught.value.message


def test_preferences_are_a_kind_of_their_own(path: Path) -> None:
    pair = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    write(path, pair, {**pair, "answer": "x"})
    assert check_rows(path, max_rows=2) == RowSummary(2, "preferences")
    assert num_margins(path) == 0
    first, second = read_rows(path, "preferences")
    assert first.pair is not None
    assert (first.turns, first.pair.chosen, first.pair.rejected) == ((USER,), "Because.", "No.")
    assert second.columns == {"answer": "x"}
    with pytest.raises(InvalidRequest, match="line 1: ends with two responses"):
        read_prompts(path)
    write(path, {"prompt": "a"}, pair)
    with pytest.raises(InvalidRequest, match="line 2: .* prompts, whole conversations and pref"):
        check_rows(path, max_rows=2)


def test_margins_are_in_all_preferences_or_in_none(path: Path) -> None:
    pair = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    one = {**pair, "margin_chosen": 1, "margin_rejected": 0.5}
    two = {**pair, "margin_chosen": [1, 2], "margin_rejected": [0.5, 3]}
    write(path, one, {**one, "margin_chosen": [2], "margin_rejected": [0]})
    assert check_rows(path, max_rows=2) == RowSummary(2, "preferences", num_margins=1)
    assert next(read_rows(path, "preferences")).columns == {
        "margin_chosen": 1.0,
        "margin_rejected": 0.5,
    }
    write(path, two, two)
    assert check_rows(path, max_rows=2).num_margins == num_margins(path) == 2
    for other in (one, pair):
        write(path, two, other)
        with pytest.raises(InvalidRequest, match="line 2: has margins of . obj.*line 1 of 2"):
            check_rows(path, max_rows=2)


def test_a_long_unknown_key_is_told_short_and_printable(path: Path) -> None:
    write(path, {"prompt": "x", "\ud800" + "k" * 1000: 1})
    with pytest.raises(InvalidRequest, match="unknown key") as caught:
        check_rows(path, max_rows=9)
    assert len(caught.value.message) < 300
    caught.value.message.encode()


def test_a_line_may_have_a_megabyte_and_no_more(path: Path) -> None:
    frame = b'{"prompt": ""}'
    longest = b'{"prompt": "' + b"x" * (MAX_LINE_BYTES - len(frame)) + b'"}'
    write(path, b"\xef\xbb\xbf" + longest + b"\r", longest)
    assert check_rows(path, max_rows=2).rows == 2
    write(path, b"", longest + b" ")
    with pytest.raises(InputTooLong, match="line 2: more than 1,000,000 bytes"):
        check_rows(path, max_rows=2)


def test_a_file_without_rows_or_with_too_many_is_refused(path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no rows"):
        check_rows(write(path, b"", b" "), max_rows=1)
    with pytest.raises(InputTooLong, match="line 2: more than 1 rows.*max_file_rows above 1"):
        check_rows(write(path, {"prompt": "a"}, {"prompt": "b"}), max_rows=1)
