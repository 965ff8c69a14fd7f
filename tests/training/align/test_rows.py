from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused
from steerward.training.align.rows import read_pairs, read_prompts, split_held_out


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_prompt_is_text_or_turns_and_keeps_its_other_columns(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    path = written(tmp_path / "p.jsonl", {"prompt": "a", "answer": 7}, {"messages": turns})
    first, second = read_prompts(path)
    assert first.messages == ({"role": "user", "content": "a"},)
    assert first.columns == {"answer": 7}
    assert list(second.messages) == turns
    assert second.columns == {}


def test_a_pair_has_two_responses_as_text_or_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}]
    row = {"prompt": "a", "chosen": turns, "rejected": "no", "margin_chosen": 1.0}
    (pair,) = read_pairs(written(tmp_path / "p.jsonl", row))
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    assert pair.columns == {"margin_chosen": 1.0}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "give either prompt or messages"),
        ({"prompt": "a", "messages": []}, "give either prompt or messages"),
        ({"prompt": 3}, "neither text nor a list of turns"),
        ({"prompt": " "}, "is empty"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "end it with"),
        ({"messages": [{"role": "user"}]}, "both text"),
    ],
)
def test_a_row_that_is_no_prompt_is_refused_with_its_place(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    path = written(tmp_path / "p.jsonl", {"prompt": "fine"}, row)
    with pytest.raises(DatasetRefused, match=r"p\.jsonl, row 1") as refused:
        read_prompts(path)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "chosen": "x"}, "no rejected"),
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "are equal"),
        ({"prompt": "a", "chosen": "x", "rejected": ""}, "neither text nor turns"),
        (
            {"prompt": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": "y"},
            "not the assistant's",
        ),
    ],
)
def test_a_row_that_is_no_pair_is_refused(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(DatasetRefused, match=told):
        read_pairs(written(tmp_path / "p.jsonl", row))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="has no rows"):
        read_prompts(written(tmp_path / "p.jsonl"))


def test_at_most_a_tenth_is_held_out_and_the_rows_alone_say_which(tmp_path: Path) -> None:
    rows = read_prompts(written(tmp_path / "p.jsonl", *({"prompt": f"{i}"} for i in range(40))))
    kept, held_out = split_held_out(rows, num=100)
    assert (len(kept), len(held_out)) == (36, 4)
    assert sorted(row.messages[0]["content"] for row in [*kept, *held_out]) == sorted(
        row.messages[0]["content"] for row in rows
    )
    assert split_held_out(rows, num=100) == (kept, held_out)
    # As it was when rows were held out, and not prompts.
    assert [row.messages[0]["content"] for row in held_out] == ["4", "5", "17", "19"]


def test_a_prompt_is_held_out_with_all_of_its_rows(tmp_path: Path) -> None:
    """Rows were held out one by one, with other rows of their prompts left to train on."""
    rows = [{"prompt": f"{i // 2}", "chosen": f"yes {i}", "rejected": "no"} for i in range(80)] + [
        {"prompt": "often", "chosen": f"{i}", "rejected": "no"} for i in range(40)
    ]
    pairs = read_pairs(written(tmp_path / "p.jsonl", *rows))
    kept, held_out = split_held_out(pairs, num=9)
    prompts = [{row.messages[0]["content"] for row in side} for side in (kept, held_out)]
    assert not prompts[0] & prompts[1]
    assert (len(kept), len(held_out), len(prompts[1])) == (112, 8, 4)
    assert "often" in prompts[0]


def test_a_row_knows_its_place_in_the_file(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "x", "rejected": "y"}
    path = written(tmp_path / "p.jsonl", row, row)
    for read in (read_prompts, read_pairs):
        assert [one.place for one in read(path)] == ["p.jsonl, row 0", "p.jsonl, row 1"]
