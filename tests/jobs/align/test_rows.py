"""Uploaded rows of any form become the form that optimisers read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerward.jobs.align.rows import write_rows
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.rows import read_pairs, read_prompts

USER = {"role": "user", "content": "Wär?"}
ANSWER = {"role": "assistant", "content": "Because."}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_prompts_keep_what_judges_read(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        {"prompt": "Wär?", "answer": "4", "id": 1, "columns": {"most": [3]}},
        {"messages": [{"role": "system", "content": "Be brief."}, USER], "metadata": {"a": 1}},
    )
    write_rows(source, tmp_path / "new" / "b.jsonl", kind="prompts")
    first, second = read_prompts(tmp_path / "new" / "b.jsonl")
    assert (first.messages, first.columns) == ((USER,), {"answer": "4", "most": [3]})
    assert (len(second.messages), second.columns) == (2, {})


def test_pairs_of_either_form_are_alike(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        {
            "prompt": "Wär?",
            "chosen": "Because.",
            "rejected": "No.",
            "margin_chosen": 1,
            "margin_rejected": 0,
        },
        {
            "input": {"messages": [USER]},
            "preferred_output": [ANSWER],
            "non_preferred_output": [{**ANSWER, "content": "No."}],
        },
    )
    write_rows(source, tmp_path / "b.jsonl", kind="preferences")
    first, second = read_pairs(tmp_path / "b.jsonl")
    assert (first.messages, first.chosen, first.rejected) == ((USER,), "Because.", "No.")
    assert (second.messages, second.chosen, second.rejected) == ((USER,), "Because.", "No.")
    assert first.columns == {"margin_chosen": 1.0, "margin_rejected": 0.0}


def test_rows_of_another_kind_leave_no_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"prompt": "Wär?"})
    with pytest.raises(InvalidRequest, match="preferences end with two responses"):
        write_rows(source, tmp_path / "b.jsonl", kind="preferences")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
