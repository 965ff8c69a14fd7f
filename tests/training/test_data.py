"""Data files: schemas, labels, splits, and refusals that name file and row."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from steerward.protocol.errors import DatasetRefused
from steerward.training.data.labels import describe, label_matrix, load_objectives
from steerward.training.data.rows import (
    PreferencePair,
    RatedResponse,
    cluster_keys,
    held_out,
    is_pair_file,
    load_rows,
)

RATED = {
    "id": "r0", "source": "s", "split": "train", "messages": [], "response": "Yes.",
    "ratings": {"quality": 4.0},
}  # fmt: skip
PAIR = {
    "id": "p0", "source": "s", "split": "test", "chosen": "a", "rejected": "b",
    "messages": [{"role": "user", "content": "hi"}], "strength": 1.0,
}  # fmt: skip


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_rows_of_both_kinds_are_told_apart(tmp_path: Path) -> None:
    rated, pairs = write(tmp_path / "r.jsonl", RATED), write(tmp_path / "p.jsonl", PAIR)
    assert not is_pair_file(rated)
    assert is_pair_file(pairs)
    (row,) = load_rows([rated], RatedResponse)
    assert row.context == [{"role": "user", "content": ""}]
    assert row.prompt_key == "r0"
    (pair,) = load_rows([pairs], PreferencePair, split="test")
    assert pair.prompt_key == "hi"
    assert load_rows([pairs], PreferencePair, split="train") == []


def test_parquet_reads_as_json_lines_do(tmp_path: Path) -> None:
    rows = [RATED, {**RATED, "id": "r1", "ratings": {"tone": 1.0}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    from_parquet = load_rows([tmp_path / "r.parquet"], RatedResponse)
    assert from_parquet == load_rows([write(tmp_path / "r.jsonl", *rows)], RatedResponse)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "row 1: not JSON"),
        ("3", "row 1: not a JSON object"),
        ({**RATED, "ratings": {}}, "row 1: ratings"),
        ({**RATED, "response": 3}, "row 1: response"),
        ({"id": "x"}, "row 1: source"),
        ({**RATED, "ratings": {"quality": "good"}}, "row 1: ratings.quality"),
    ],
    ids=["json", "object", "no-ratings", "response", "missing", "number"],
)
def test_bad_row_is_refused_by_file_and_number(tmp_path: Path, row: object, words: str) -> None:
    with pytest.raises(DatasetRefused, match=rf"r\.jsonl, {words}"):
        load_rows([write(tmp_path / "r.jsonl", RATED, row)], RatedResponse)


@pytest.mark.parametrize("name", ["absent.jsonl", "broken.jsonl.gz", "broken.parquet"])
def test_unreadable_file_is_refused(tmp_path: Path, name: str) -> None:
    if "broken" in name:
        (tmp_path / name).write_bytes(b"not what the name says")
    with pytest.raises(DatasetRefused, match=name):
        load_rows([tmp_path / name], RatedResponse)


def test_labels_are_scaled_averaged_and_missing_where_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "objectives.json"
    spec = {
        "quality": [
            {"source": "s", "attribute": "quality", "low": 1, "high": 5},
            {"source": "s", "attribute": "style", "low": 0, "high": 1},
        ],
        "harm": [{"source": "s", "attribute": "harmful", "low": 1, "high": 0}],
        "verbosity": [{"derived": "log_characters", "low": 0, "high": 10}],
    }
    path.write_text(json.dumps(spec))
    objectives = load_objectives(path)
    rows = [
        RatedResponse.model_validate(RATED),
        RatedResponse.model_validate({**RATED, "ratings": {"quality": 5, "style": 0.5}}),
        RatedResponse.model_validate({**RATED, "source": "other", "ratings": {"quality": 5}}),
        RatedResponse.model_validate({**RATED, "ratings": {"harmful": 1}}),
    ]
    labels_NK = label_matrix(rows, objectives)
    nan = float("nan")
    length = math.log(5) / 10
    expected = [
        [0.75, nan, length], [0.75, nan, length], [nan, nan, length], [nan, 0.0, length],
    ]  # fmt: skip
    torch.testing.assert_close(labels_NK, torch.tensor(expected), equal_nan=True)
    assert describe(objectives["harm"], with_pairs=False) == "0..1, from s/harmful (1..0)"


@pytest.mark.parametrize(
    "source",
    [{"low": 0, "high": 0, "derived": "log_characters"}, {"low": 0, "high": 1},
     {"low": 0, "high": 1, "derived": "length"}, {"low": 0, "high": 1, "source": "s"}],
)  # fmt: skip
def test_bad_objectives_file_is_refused(tmp_path: Path, source: object) -> None:
    path = tmp_path / "objectives.json"
    path.write_text(json.dumps({"quality": [source]}))
    with pytest.raises(DatasetRefused, match=r"objectives\.json: quality"):
        load_objectives(path)


def row(i: int, *, prompt: str, source: str = "s") -> PreferencePair:
    fields = {"id": f"{source}-{i}", "source": source, "chosen": "a", "rejected": "b"}
    return PreferencePair.model_validate(
        fields | {"messages": [{"role": "user", "content": prompt}]}
    )


def test_folds_keep_prompts_together_and_have_their_share() -> None:
    rows = [row(i, prompt=f"prompt {i // 2}") for i in range(8000)]
    fold = held_out(rows, share=0.1, seed=0)
    assert fold == held_out(rows, share=0.1, seed=0)
    assert fold[::2] == fold[1::2]
    assert 0.08 < sum(fold) / len(fold) < 0.12
    assert fold != held_out(rows, share=0.1, seed=1)


def test_rows_of_a_source_with_one_prompt_stand_for_themselves() -> None:
    """By its prompt the whole source would fall on one side, and count as one observation."""
    rows = [row(i, prompt="Write something.", source="prose") for i in range(2000)]
    rows += [row(i, prompt=f"prompt {i}") for i in range(2)]
    assert cluster_keys(rows)[:2] == ["prose-0", "prose-1"]
    assert cluster_keys(rows)[-2:] == ["prompt 0", "prompt 1"]
    assert 0.07 < sum(held_out(rows, share=0.1, seed=0)[:2000]) / 2000 < 0.13


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_rating_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "rated.jsonl"
    fields = {"id": "1", "source": "s", "messages": [], "response": "a", "ratings": {"q": value}}
    path.write_text(json.dumps(fields))
    with pytest.raises(DatasetRefused, match=r"rated\.jsonl, row 0: ratings\.q"):
        load_rows([path], RatedResponse)
